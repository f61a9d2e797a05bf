"""softmax(q k^T / sqrt(d) + bias) v, with weights that are kept once for the gradient.

Written out, because torch's fused kernel takes its slow path when a bias needs a gradient, as ours do; on 49 tokens it
is slower still.
"""

from typing import Any

import torch
from torch import Tensor


def attend_dense(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v.

    For the gradient, q, k, v and the weights are kept, in the type in which they are multiplied, and nothing of the
    bias. Autograd would keep the weights in float32 too under autocast.

    Args:
        q: (..., heads, Q, d).
        k, v: (..., heads, K, d).
        bias: broadcasts to (..., heads, Q, K).

    Returns:
        (..., heads, Q, d).
    """
    if torch.compiler.is_compiling():  # a compiler decides itself what is kept
        return attention_weights(q, k, bias).to(v.dtype) @ v
    output: Tensor = _Attend.apply(*as_multiplied(q, k, v), bias)[0]
    return output


def attention_weights(q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias), (..., heads, Q, K); arguments as for `attend_dense`."""
    scores, scale = q @ k.transpose(-2, -1), q.shape[-1] ** -0.5
    # Scaled with the bias in one pass: scaled queries would be one more map to be kept for the gradient.
    scores = scores * scale if bias is None else torch.add(bias, scores, alpha=scale)
    return scores.softmax(dim=-1)


def as_multiplied(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In the type that autocast multiplies in, where it is on: a function's own backward pass runs without it."""
    device = tensors[0].device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return tuple(t.to(torch.get_autocast_dtype(device)) for t in tensors)
    return tensors


class _Attend(torch.autograd.Function):
    """The weights are an output with a gradient of its own, so that the backward pass can be differentiated too."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        weights = attention_weights(q, k, bias).to(v.dtype)
        return weights @ v, weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *multiplied, bias = inputs
        ctx.bias_is = None if bias is None else (bias.shape, bias.dtype)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*multiplied, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, of_weights: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q, k, v, weights = ctx.saved_tensors
        needs_q, needs_k, needs_v, needs_bias = ctx.needs_input_grad
        of_q = of_k = of_v = of_bias = None
        if grad is not None:
            of_v = weights.transpose(-2, -1) @ grad if needs_v else None
            through_output = grad @ v.transpose(-2, -1)
            of_weights = through_output if of_weights is None else of_weights + through_output
        if of_weights is not None and (needs_q or needs_k or needs_bias):
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            scale = q.shape[-1] ** -0.5
            of_q = (of_scores @ k) * scale if needs_q else None
            of_k = (of_scores.transpose(-2, -1) @ q) * scale if needs_k else None
            if needs_bias:
                shape, dtype = ctx.bias_is
                of_bias = of_scores.sum_to_size(shape).to(dtype)
        return of_q, of_k, of_v, of_bias
