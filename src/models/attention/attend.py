"""Scaled dot-product attention with an additive bias: the step that all kinds share."""

from torch import Tensor

from src.models import softmax_attention
from src.models.deformable_op import BiasTable, deformable_attention


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | BiasTable | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v.

    Args:
        q: (..., heads, Q, d).
        k, v: (..., heads, K, d).
        bias: broadcasts to (..., heads, Q, K); or a table that is still to be read.

    Returns:
        (..., heads, Q, d).
    """
    if isinstance(bias, BiasTable):
        return deformable_attention(q, k, v, bias)
    return softmax_attention.attend_dense(q, k, v, bias)


def attention_weights(q: Tensor, k: Tensor, bias: Tensor | BiasTable | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias), (..., heads, Q, K); arguments as for `attend`."""
    return softmax_attention.attention_weights(q, k, bias.dense() if isinstance(bias, BiasTable) else bias)
