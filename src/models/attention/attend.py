"""Scaled dot-product attention with an additive bias: the step that all kinds share."""

from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v.

    Written out, because torch's fused kernel takes its slow path when a bias needs a gradient, as ours do; on 49
    tokens it is slower still.

    Args:
        q: (..., heads, Q, d).
        k, v: (..., heads, K, d).
        bias: broadcasts to (..., heads, Q, K).

    Returns:
        (..., heads, Q, d).
    """
    return attention_weights(q, k, bias).to(v.dtype) @ v


def attention_weights(q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias), (..., heads, Q, K); arguments as of `attend`."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    return scores.softmax(dim=-1)
