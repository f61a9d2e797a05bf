"""Scaled dot-product attention with an additive bias: the step that all kinds share."""

from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, *biases: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d) + biases) v.

    Written out, because torch's fused kernel takes its slow path when a bias needs a gradient, as ours do; on 49
    tokens it is slower still.

    Args:
        q: (B, heads, Q, d).
        k, v: (B, heads, K, d).
        biases: each broadcasts to (B, heads, Q, K), or is None.

    Returns:
        (B, heads, Q, d).
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    for bias in biases:
        if bias is not None:
            scores = scores + bias
    return scores.softmax(dim=-1).to(v.dtype) @ v
