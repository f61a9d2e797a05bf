"""The relative bias before it is read: a table, and where queries and keys are."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor


class BiasTable(NamedTuple):
    """What is added to the score of a query and a key: `table`, read at their displacement (DAT, eq. 9).

    Kept unread, since the reading is as large as queries x keys, and attention may do without it.

    Attributes:
        table: (heads, T, T'), displacements from (-2, -2) to (2, 2) in units of half a map.
        points: (B, G, Hk, Wk, yx), where the keys are, in [-1, 1] on the map; heads of a group share them.
        queries: (H, W, yx), where the queries are, a regular mesh.
        read: a function of `bilinear.py`.
        kernel: how to attend: a name of `choose.py`.
    """

    table: Tensor
    points: Tensor
    queries: Tensor
    read: Callable[[Tensor, Tensor], Tensor]
    kernel: str

    def dense(self) -> Tensor:
        """(B, heads, H * W, Hk * Wk): the table read for every query and key. Zeros outside of the table."""
        bias = self.read(self.tables(), self.displacement())
        return rearrange(bias, "(b g) heads q k -> b (g heads) q k", g=self.points.shape[1])

    def displacement(self) -> Tensor:
        """(B * G, H * W, Hk * Wk, xy): of every query from every key, in [-1, 1] on the table."""
        # Turned to (x, y) and halved while still small: grid_sample is slow on a permuted grid, and positions are in
        # [-1, 1], their differences in [-2, 2]. Keys and their (x, y) are one axis, since short axes are slow.
        number = self.points.shape[2] * self.points.shape[3]
        keys = rearrange(self.points.flip(-1) * 0.5, "b g hk wk xy -> (b g) 1 (hk wk xy)")
        queries = repeat(self.queries.flip(-1) * 0.5, "h w xy -> (h w) (keys xy)", keys=number)
        return rearrange(queries - keys, "b q (keys xy) -> b q keys xy", xy=2)

    def tables(self) -> Tensor:
        """(B * G, heads of a group, T, T'), in the type of the points."""
        batch, groups = self.points.shape[:2]
        grouped = rearrange(self.table, "(g heads) dy dx -> g heads dy dx", g=groups)
        return grouped.repeat(batch, 1, 1, 1).to(torch.promote_types(self.points.dtype, self.queries.dtype))
