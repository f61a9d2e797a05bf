"""Scaled dot-product attention with an additive bias: the step that all kinds share."""

import torch
from torch import Tensor

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
    return attention_weights(q, k, bias).to(v.dtype) @ v


def attention_weights(q: Tensor, k: Tensor, bias: Tensor | BiasTable | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias), (..., heads, Q, K); arguments as for `attend`."""
    if isinstance(bias, BiasTable):
        bias = bias.dense()
    scores, scale = q @ k.transpose(-2, -1), q.shape[-1] ** -0.5
    # Scaled with the bias in one pass: scaled queries would be one more map to be kept for the gradient.
    scores = scores * scale if bias is None else torch.add(bias, scores, alpha=scale)
    return scores.softmax(dim=-1)
