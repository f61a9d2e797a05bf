"""Deformable attention as one function, and its interchangeable implementations.

`reference.py` is the definition. `dense.py` keeps, of what is as large as queries x keys, the weights alone; `fused.py`
computes block by block and keeps nothing of that size; `triton.py` does so in one pass on CUDA. `choose.py` says which
of them is used.
"""

from torch import Tensor

from src.models.deformable_op import choose, dense, reference
from src.models.deformable_op.bias_table import BiasTable
from src.models.deformable_op.cells import IrregularQueries

__all__ = ["BiasTable", "deformable_attention"]


def deformable_attention(q: Tensor, k: Tensor, v: Tensor, bias: BiasTable) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v, the bias read between the cells of a table (DAT, eq. 9).

    Gradients are those of q, k, v, the table and the points.

    Args:
        q: (B, heads, H * W, d).
        k, v: (B, heads, K, d), read at the K points of each group of heads.
        bias: the table, the points and the positions of the queries; its `kernel` names the implementation, and
            "auto" chooses.

    Returns:
        (B, heads, H * W, d).

    Raises:
        ValueError: the implementation that was asked for by name can't do this.
    """
    choice = choose.choose(bias.kernel, q, bias)
    if choice.kernel == "triton":
        from src.models.deformable_op.triton import attend  # its package is there on CUDA only

        choose.note("triton", choice.reason)
        return attend(q, k, v, bias)
    if choice.kernel == "fused":
        from src.models.deformable_op import fused

        try:
            output = fused.attend(q, k, v, bias)
            choose.note("fused", choice.reason)
            return output
        except IrregularQueries as irregular:
            if bias.kernel == "fused":
                raise
            choice = choose.Choice("reference", str(irregular))
    choose.note(choice.kernel, choice.reason)
    return (dense if choice.kernel == "dense" else reference).attend(q, k, v, bias)
