"""Where queries and keys meet in the table: along an axis, query i and key k read cell at(i) + shift(k).

Queries are a mesh: at(i) is (H - 1) / H of a cell more from one to the next with the published grid, a whole cell with
DAT++'s, less than one where the map is larger than the table's. The shift belongs to the key alone. Nothing of the size
queries x keys is needed to say where all of them read.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

ROUNDING = 1e-5  # of a cell: positions are float32, and in a table of 100 cells they are up to 3e-6 cells off


class Axis(NamedTuple):
    """Cells of the table along y or x.

    Attributes:
        size: cells of the table.
        at: of each query, how many cells it reads beyond query 0.
        first: (B, G, K), the cell that query 0 reads, rounded down.
        rest: (B, G, K), what rounding left, in [0, 1).
    """

    size: int
    at: tuple[float, ...]
    first: Tensor
    rest: Tensor

    @property
    def cells_per_position(self) -> float:
        """How far a key's shift moves when the key does: minus this."""
        return (self.size - 1) / 4


class IrregularQueries(ValueError):
    """Queries aren't a mesh of rows and columns."""


def axes(table: Tensor, points: Tensor, queries: Tensor) -> tuple[Axis, Axis]:
    """Along y and x.

    Args:
        table: (heads, T, T').
        points: (B, G, Hk, Wk, yx).
        queries: (H, W, yx).

    Raises:
        IrregularQueries: `queries` isn't a mesh.
    """
    y, x = queries[:, :1, 0], queries[:1, :, 1]
    if not torch.equal(queries, torch.stack((y.expand(queries.shape[:2]), x.expand(queries.shape[:2])), -1)):
        raise IrregularQueries("queries of a row or column aren't all at the same y or x")
    sizes = table.shape[1:]
    return _axis(sizes[0], y.flatten(), points[..., 0]), _axis(sizes[1], x.flatten(), points[..., 1])


def _axis(size: int, queries: Tensor, points: Tensor) -> Axis:
    # In float64: which cell is read doesn't depend on rounding, where slopes jump from one to the next.
    cells_per_position, positions = (size - 1) / 4, queries.tolist()
    shift = (positions[0] - points.flatten(2).double()) * cells_per_position + 2 * cells_per_position
    first = shift.floor()
    at = tuple(cells_per_position * (position - positions[0]) for position in positions)
    return Axis(size, at, first, (shift - first).to(points.dtype))


class Taps(NamedTuple):
    """Which neighbouring cells some queries can read, whatever rest the key has.

    Query i reads between cells `lowest(i)` and `lowest(i) + number - 1`, counted from the cell of the key's shift: 2 of
    them if queries are whole cells apart, otherwise 3, of which two at a time have weight. That is linear interpolation
    by a stencil that is the same for all keys, with weights that depend on query and key.

    Attributes:
        number: 2 or 3.
        base: the lowest cell of all.
        rows: cells from the lowest to the highest.
        runs: (start, length, row) of queries whose cells follow each other: from query `start` on, `length` queries
            begin at `row`, `row + 1`, ...
        beyond: of each query, how many cells `at` lies beyond its middle cell, from -1 to 0; 0 where there are two.
    """

    number: int
    base: int
    rows: int
    runs: tuple[tuple[int, int, int], ...]
    beyond: tuple[float, ...]

    @classmethod
    def of(cls, at: Sequence[float]) -> "Taps":
        """For queries that read so many cells beyond query 0."""
        whole = all(abs(cell - round(cell)) < ROUNDING for cell in at)
        lowest: list[int] = []
        for cell in at:
            following = lowest[-1] + 1 if lowest else math.ceil(cell) - 1  # one run, where that is possible
            if whole:
                lowest.append(round(cell))
            else:
                lowest.append(following if 0 <= cell - following <= 1 else math.floor(cell))
        number, base = 2 if whole else 3, min(lowest)
        runs, start = [], 0
        for i in range(1, len(lowest) + 1):
            if i == len(lowest) or lowest[i] != lowest[i - 1] + 1:
                runs.append((start, i - start, lowest[start] - base))
                start = i
        beyond = tuple(0.0 if whole else cell - low - 1 for cell, low in zip(at, lowest, strict=True))
        return cls(number, base, max(lowest) - base + number, tuple(runs), beyond)
