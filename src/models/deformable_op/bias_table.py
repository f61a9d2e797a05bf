"""The relative bias before it is read: a table, and where queries and keys are."""

from collections.abc import Callable
from typing import NamedTuple

from einops import rearrange
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
        batch, groups = self.points.shape[:2]
        # Turned to (x, y) while still small, and made contiguous: grid_sample is slow on a permuted grid.
        keys = rearrange(self.points.flip(-1), "b g hk wk xy -> (b g) 1 (hk wk) xy").contiguous()
        queries = rearrange(self.queries.flip(-1), "h w xy -> 1 (h w) 1 xy").contiguous()
        displacement = (queries - keys) * 0.5  # of two positions in [-1, 1]: back into [-1, 1]
        grouped = rearrange(self.table, "(g heads) dy dx -> g heads dy dx", g=groups)
        table = grouped.repeat(batch, 1, 1, 1).to(displacement.dtype)
        bias = self.read(table, displacement)
        return rearrange(bias, "(b g) heads q k -> b (g heads) q k", g=groups)
