"""The bias of a block of queries and all keys, by one look-up per cell and two passes of linear interpolation.

Keys lie innermost, so that each pass is a plain product of long rows. The cells that a block of h x w queries can read
are (h + 2) x (w + 2) for each key, little more than there are queries: looked up once each, they are interpolated along
x, then along y. grid_sample looks up four cells for each query and key.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from src.models.deformable_op.cells import Axis, Taps
from src.models.deformable_op.scratch import Scratch


class Block(NamedTuple):
    """A part of the scores: images, groups, heads of each group, and rows of queries."""

    images: slice
    groups: slice
    heads: slice
    rows: range


class Table(NamedTuple):
    """The table with zeros round it, so that cells off it can be looked up.

    Attributes:
        cells: (G, heads of a group, T + 2 * margin y, T' + 2 * margin x).
        margins: along y and x.
    """

    cells: Tensor
    margins: tuple[int, int]

    @classmethod
    def of(cls, table: Tensor, groups: int, axes: tuple[Axis, Axis]) -> "Table":
        # A key so far off that none of its cells is on the table is moved to where that is just so.
        down, right = (Taps.of(axis.at).rows + 2 for axis in axes)
        return cls(F.pad(table.unflatten(0, (groups, -1)), (right, right, down, down)), (down, right))

    def crop(self, of_padded: Tensor) -> Tensor:
        """The table's part of a tensor like `cells`: (heads, T, T')."""
        down, right = self.margins
        height, width = of_padded.shape[2:]
        return of_padded[:, :, down : height - down, right : width - right].flatten(0, 1)


class Weights(NamedTuple):
    """How far each query and key is from the middle of its three cells, or from the first of its two.

    Attributes:
        below, above: in [-1, 0] and [0, 1], (images, groups, queries, K); of two cells there is only `above`.
    """

    below: Tensor | None
    above: Tensor

    @classmethod
    def of(cls, rest: Tensor, taps: Taps) -> "Weights":
        """From what rounding left of the keys' shifts, (images, groups, K)."""
        distance = rest[:, :, None] + rest.new_tensor(taps.beyond)[:, None]
        return cls(None, distance) if taps.number == 2 else cls(distance.clamp(max=0), distance.clamp(min=0))


class Interpolation:
    """The bias of a block, with what its gradient needs. Tensors lie in `scratch` and last until the next block.

    What heads of a group share, which is where their keys are, is found once: `serves` another block with other heads.
    """

    def __init__(self, block: Block, table: Table, axes: tuple[Axis, Axis], scratch: Scratch):
        self.block, self.table, self.scratch = block, table, scratch
        y, x = axes
        part = block.images, block.groups
        taps_y, taps_x = Taps.of(y.at[block.rows.start : block.rows.stop]), Taps.of(x.at)
        self.by_y = Pass(ALONG_Y, taps_y, Weights.of(y.rest[part], taps_y), scratch)
        self.by_x = Pass(ALONG_X, taps_x, Weights.of(x.rest[part], taps_x), scratch)
        self.index = self._index(y.first[part], x.first[part])

    def serves(self, block: Block) -> bool:
        """Whether the block differs in its heads at most, which it then takes."""
        same = self.block._replace(heads=block.heads) == block
        if same:
            self.block = block
        return same

    def _index(self, y: Tensor, x: Tensor) -> Tensor:
        """Of the cells of each key in the padded table: (images, groups, 1, cells * K)."""
        (height, width), (down, right) = self.table.cells.shape[2:], self.table.margins
        corner = _within(y + down, self.by_y.taps, height) * width + _within(x + right, self.by_x.taps, width)
        rows, columns = (torch.arange(p.taps.rows, device=y.device) for p in (self.by_y, self.by_x))
        cells = (rows[:, None] * width + columns).view(-1, 1)
        index = self.scratch.take("index", *corner.shape[:2], len(cells), corner.shape[2], dtype=torch.long)
        return torch.add(corner[:, :, None], cells, out=index).flatten(2)[:, :, None]

    def bias(self) -> Tensor:
        """(images, groups, heads, rows, W, K)."""
        source = self.table.cells[self.block.groups, self.block.heads].flatten(2)
        images, groups, heads = len(self.index), *source.shape[:2]
        cells = self.scratch.take("cells", images, groups, heads, self.index.shape[-1])
        torch.gather(source.expand(images, -1, -1, -1), 3, self.index.expand(cells.shape), out=cells)
        cells = cells.view(images, groups, heads, self.by_y.taps.rows, self.by_x.taps.rows, -1)
        return self.by_y.forward(self.by_x.forward(cells))

    def add_gradient(self, bias: Tensor, table: Tensor | None, shifts: tuple[Tensor, Tensor] | None) -> None:
        """Adds what the gradient of the bias says of the padded table and of the shifts along y and x, (B, G, K)."""
        part = self.block.images, self.block.groups
        if shifts:
            shifts[0][part] += self.by_y.of_shift(bias)
        by_x = self.by_y.backward(bias)
        if shifts:
            shifts[1][part] += self.by_x.of_shift(by_x)
        if table is not None:
            cells = self.by_x.backward(by_x).flatten(3)
            target = table[self.block.groups, self.block.heads].flatten(2)
            for one, index in zip(cells, self.index, strict=True):  # one after another: in a fixed order
                target.scatter_add_(2, index.expand(one.shape), one)


ALONG_Y, ALONG_X = 3, 4  # of (images, groups, heads, y, x, K)


class Pass:
    """Linear interpolation along one axis: rows of cells to rows of queries.

    value = middle + below * (middle - one before) + above * (one after - middle), where below <= 0 <= above.
    """

    def __init__(self, dim: int, taps: Taps, weights: Weights, scratch: Scratch):
        self.dim, self.taps, self.scratch = dim, taps, scratch
        self.above = weights.above.unsqueeze(2).unsqueeze(7 - dim)
        self.below = None if weights.below is None else weights.below.unsqueeze(2).unsqueeze(7 - dim)

    def forward(self, cells: Tensor) -> Tensor:
        dim, taps = self.dim, self.taps
        self.slopes = torch.sub(
            cells.narrow(dim, 1, taps.rows - 1),
            cells.narrow(dim, 0, taps.rows - 1),
            out=self._take("slopes", cells.shape, taps.rows - 1),
        )
        values = self._take("values", cells.shape, len(taps.beyond))
        for start, n, row in taps.runs:
            value, middle = values.narrow(dim, start, n), row + taps.number - 2
            torch.addcmul(
                cells.narrow(dim, middle, n),
                self.above.narrow(dim, start, n),
                self.slopes.narrow(dim, middle, n),
                out=value,
            )
            if self.below is not None:
                value.addcmul_(self.below.narrow(dim, start, n), self.slopes.narrow(dim, row, n))
        return values

    def of_shift(self, gradient: Tensor) -> Tensor:
        """The gradient of the keys' shifts along the axis, (images, groups, K), from that of the values."""
        dim, taps = self.dim, self.taps
        others = (2, 7 - dim)
        product = self._take("products", gradient.shape, gradient.shape[dim])
        total = torch.zeros((), dtype=gradient.dtype, device=gradient.device)
        for start, n, row in taps.runs:
            given, out, middle = gradient.narrow(dim, start, n), product.narrow(dim, start, n), row + taps.number - 2
            slope = torch.mul(given, self.slopes.narrow(dim, middle, n), out=out).sum(others, keepdim=True)
            if self.below is not None:
                before = torch.mul(given, self.slopes.narrow(dim, row, n), out=out).sum(others, keepdim=True)
                slope = torch.where(self.below.narrow(dim, start, n) < 0, before, slope)
            total = total + slope.sum((2, 3, 4))
        return total

    def backward(self, gradient: Tensor) -> Tensor:
        """The gradient of the cells from that of the values."""
        dim, taps = self.dim, self.taps
        slopes = self._take("slopes'", gradient.shape, taps.rows - 1).zero_()
        for start, n, row in taps.runs:
            given = gradient.narrow(dim, start, n)
            slopes.narrow(dim, row + taps.number - 2, n).addcmul_(given, self.above.narrow(dim, start, n))
            if self.below is not None:
                slopes.narrow(dim, row, n).addcmul_(given, self.below.narrow(dim, start, n))
        cells = self._take("gradient", gradient.shape, taps.rows)
        cells.narrow(dim, 0, 1).zero_()
        cells.narrow(dim, 1, taps.rows - 1).copy_(slopes)
        cells.narrow(dim, 0, taps.rows - 1).sub_(slopes)
        for start, n, row in taps.runs:
            cells.narrow(dim, row + taps.number - 2, n).add_(gradient.narrow(dim, start, n))
        return cells

    def _take(self, name: str, shape: torch.Size, rows: int) -> Tensor:
        return self.scratch.take(f"{name} {self.dim}", *shape[: self.dim], rows, *shape[self.dim + 1 :])


def _within(first: Tensor, taps: Taps, size: int) -> Tensor:
    """The lowest cell of each key; keys without a cell on the table are moved to where that is just so."""
    # nan_to_num: a point that isn't a number makes a bias that isn't one by its weights.
    return (first + taps.base).nan_to_num(0).clamp(0, size - taps.rows).long()
