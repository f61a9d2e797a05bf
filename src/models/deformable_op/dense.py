"""The bias of all queries and keys as one tensor, of which nothing is kept: for maps too small to be worth blocks.

Kept for the gradient are q, k, v, the weights, the table and the points. Where each query reads the table for each key
is as large as two maps of weights, and quickly computed anew.
"""

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from src.models import bilinear
from src.models.deformable_op.bias_table import BiasTable
from src.models.softmax_attention import attend_dense


def attend(q: Tensor, k: Tensor, v: Tensor, bias: BiasTable) -> Tensor:
    """As `deformable_attention`; under autocast the weights are kept in its type."""
    dense: Tensor = _Reading.apply(bias.table, bias.points, bias.queries, bias.read)
    return attend_dense(q, k, v, dense)


class _Reading(torch.autograd.Function):
    """`BiasTable.dense`, of table and points; queries have no gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(table: Tensor, points: Tensor, queries: Tensor, read: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return BiasTable(table, points, queries, read, "dense").dense()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.read = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        table, points, queries = ctx.saved_tensors
        bias, needed = BiasTable(table, points, queries, ctx.read, "dense"), ctx.needs_input_grad[:2]
        groups, height = points.shape[1:3]
        grad = rearrange(grad, "b (g heads) q k -> (b g) heads q k", g=groups)
        of_tables, of_displacement = bilinear.gradients(bias.read, bias.tables(), bias.displacement(), grad, needed)
        of_table = of_points = None
        if needed[0]:
            of_table = rearrange(of_tables, "(b g) heads dy dx -> b (g heads) dy dx", g=groups).sum(0).to(table.dtype)
        if needed[1]:
            of_keys = of_displacement.sum(1) * -0.5
            of_points = rearrange(of_keys, "(b g) (hk wk) xy -> b g hk wk xy", g=groups, hk=height).flip(-1)
        return of_table, of_points, None, None
