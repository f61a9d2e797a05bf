"""The definition: softmax(q k^T / sqrt(d) + bias) v, with everything written out, as the published code computes it."""

from torch import Tensor

from src.models.deformable_op.bias_table import BiasTable


def attend(q: Tensor, k: Tensor, v: Tensor, bias: BiasTable) -> Tensor:
    """As `deformable_attention`. Tensors of the size queries x keys are made, and kept for the gradient."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias.dense()
    return scores.softmax(dim=-1).to(v.dtype) @ v
