"""Where queries and keys meet in the table: along an axis, query i and key k read cell step * i + shift(k).

Queries are a regular mesh, so that one step of a query is the same part of a cell everywhere: (H - 1) / H of a cell
with the published grid, a whole cell with DAT++'s, less than one where the map is larger than the table's. The shift
belongs to the key alone. Nothing of the size queries x keys is needed to say where all of them read.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

ROUNDING = 1e-5  # of a cell: positions are float32, and a table of 100 cells is read 5e-6 cells off


class Axis(NamedTuple):
    """Cells of the table along y or x.

    Attributes:
        size: cells of the table.
        step: cells between two neighbouring queries.
        first: (B, G, K), the cell that query 0 reads, rounded down.
        rest: (B, G, K), what rounding left, in [0, 1).
    """

    size: int
    step: float
    first: Tensor
    rest: Tensor

    @property
    def cells_per_position(self) -> float:
        """How far a key's shift moves when the key does: minus this."""
        return (self.size - 1) / 4


class IrregularQueries(ValueError):
    """Queries aren't a mesh of equal steps, so that no step says where they read."""


def axes(table: Tensor, points: Tensor, queries: Tensor) -> tuple[Axis, Axis]:
    """Along y and x.

    Args:
        table: (heads, T, T').
        points: (B, G, Hk, Wk, yx).
        queries: (H, W, yx).

    Raises:
        IrregularQueries: `queries` isn't a regular mesh.
    """
    found = []
    for i, (size, positions) in enumerate(zip(table.shape[1:], (queries[:, 0, 0], queries[0, :, 1]), strict=True)):
        step = _step(positions, (size - 1) / 4)
        shift = ((positions[0] - points[..., i].flatten(2)) * 0.5 + 1) * ((size - 1) / 2)
        first = shift.floor()
        found.append(Axis(size, step, first, shift - first))
    if not (
        torch.equal(queries[..., 0], queries[:, :1, 0].expand(queries.shape[:2]))
        and torch.equal(queries[..., 1], queries[:1, :, 1].expand(queries.shape[:2]))
    ):
        raise IrregularQueries("the queries of a row or column aren't at the same y or x")
    return found[0], found[1]


def _step(positions: Tensor, cells_per_position: float) -> float:
    at = [cells_per_position * position for position in positions.tolist()]
    step = (at[-1] - at[0]) / max(len(at) - 1, 1)
    off = max(abs(at[0] + i * step - cell) for i, cell in enumerate(at))
    if off > ROUNDING:
        raise IrregularQueries(f"queries are up to {off:.1g} cells of the table off equal steps")
    return step


class Taps(NamedTuple):
    """Which neighbouring cells some queries can read, whatever rest the key has.

    Query i reads between cells `first[i]` and `first[i] + number - 1`, counted from the cell of the key's shift: 2 of
    them if steps are whole cells, otherwise 3, of which two at a time have weight. They are linear interpolation as a
    stencil that is the same for all keys, with weights that depend on query and key.

    Attributes:
        number: 2 or 3.
        base: the lowest cell of all.
        rows: cells from the lowest to the highest.
        runs: (start, length, row) of queries whose cells follow each other: from query `start` on, `length` queries
            begin at `row`, `row + 1`, ...
        beyond: of each query, how many cells its middle cell lies before step * i (of two cells, the first).
    """

    number: int
    base: int
    rows: int
    runs: tuple[tuple[int, int, int], ...]
    beyond: tuple[float, ...]

    @classmethod
    def of(cls, step: float, queries: range) -> "Taps":
        at = [step * i for i in queries]
        whole = all(abs(cell - round(cell)) < ROUNDING for cell in at)
        number = 2 if whole else 3
        if whole:
            lowest = [round(cell) for cell in at]
        elif all(i - 1 - ROUNDING <= cell <= i + ROUNDING for i, cell in zip(queries, at, strict=True)):
            lowest = [i - 1 for i in queries]  # the published grid: less than a cell behind all along the map
        else:
            lowest = [math.floor(cell) for cell in at]
        base = min(lowest)
        runs, start = [], 0
        for i in range(1, len(lowest) + 1):
            if i == len(lowest) or lowest[i] != lowest[i - 1] + 1:
                runs.append((start, i - start, lowest[start] - base))
                start = i
        beyond = tuple(0.0 if whole else cell - low - 1 for cell, low in zip(at, lowest, strict=True))
        return cls(number, base, max(lowest) - base + number, tuple(runs), beyond)
