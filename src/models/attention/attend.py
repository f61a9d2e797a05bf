"""Scaled dot-product attention with an additive bias: the step that all kinds share."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from src.models.deformable_op import BiasTable, deformable_attention


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | BiasTable | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v.

    Written out, because torch's fused kernel takes its slow path when a bias needs a gradient, as ours do; on 49
    tokens it is slower still.

    Args:
        q: (..., heads, Q, d).
        k, v: (..., heads, K, d).
        bias: broadcasts to (..., heads, Q, K); or a table that is still to be read.

    Returns:
        (..., heads, Q, d).
    """
    if isinstance(bias, BiasTable):
        return deformable_attention(q, k, v, bias)
    if torch.compiler.is_compiling():  # a compiler decides itself what is kept
        return attention_weights(q, k, bias).to(v.dtype) @ v
    output: Tensor = _Attend.apply(q, k, v, bias)[0]
    return output


def attention_weights(q: Tensor, k: Tensor, bias: Tensor | BiasTable | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias), (..., heads, Q, K); arguments as for `attend`."""
    if isinstance(bias, BiasTable):
        bias = bias.dense()
    scores, scale = q @ k.transpose(-2, -1), q.shape[-1] ** -0.5
    # Scaled with the bias in one pass: scaled queries would be one more map to be kept for the gradient.
    scores = scores * scale if bias is None else torch.add(bias, scores, alpha=scale)
    return scores.softmax(dim=-1)


class _Attend(torch.autograd.Function):
    """Keeps the weights once, in the type of the values: autograd would keep them in float32 too under autocast."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        weights = attention_weights(q, k, bias).to(v.dtype)
        return weights @ v, weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *compared, bias = inputs
        ctx.bias_is = None if bias is None else (bias.shape, bias.dtype)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*compared, output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        q, k, v, weights = ctx.saved_tensors
        scale, of_bias = q.shape[-1] ** -0.5, None
        of_weights = grad @ v.transpose(-2, -1)
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        if ctx.bias_is is not None:
            shape, dtype = ctx.bias_is
            of_bias = of_scores.sum_to_size(shape).to(dtype)
        of_q, of_k = of_scores @ k, of_scores.transpose(-2, -1) @ q
        return of_q * scale, of_k * scale, weights.transpose(-2, -1) @ grad, of_bias
