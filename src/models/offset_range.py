"""How far points may move: from raw offsets and the reference grid to the points (DAT, Sec. 3.2)."""

import torch
from torch import Tensor, nn


class BoundedRange(nn.Module):
    """Points move by at most `factor` / 2 cells of their grid: s * tanh(offset) / (Hk, Wk).

    Args:
        factor: the paper's s; 0 keeps all points on the grid.

    Raises:
        ValueError: `factor` is negative.
    """

    def __init__(self, *, factor: float):
        super().__init__()
        if factor < 0:
            raise ValueError(f"offset_range.factor is {factor}; it must be 0 or more (offset_range=unbounded for none)")
        self.factor = factor

    def forward(self, offsets: Tensor, reference: Tensor) -> Tensor:
        """(B, G, Hk, Wk, yx) and (Hk, Wk, yx) to points (B, G, Hk, Wk, yx)."""
        return reference + self.shift(offsets, offsets.shape[2], offsets.shape[3])

    def shift(self, offsets: Tensor, down: float, right: float) -> Tensor:
        """Offsets bounded by `factor` / `down` along y and `factor` / `right` along x."""
        y, x = offsets.tanh().unbind(-1)
        return torch.stack([y * (self.factor / down), x * (self.factor / right)], dim=-1)


class BoundedSteps(BoundedRange):
    """Points move by at most `factor` / 2 steps between the centres of cells: s * tanh(offset) / (Hk - 1, Wk - 1).

    What the published DAT++ code does with a range of 0 or more, which none of its models has.
    """

    def forward(self, offsets: Tensor, reference: Tensor) -> Tensor:
        """(B, G, Hk, Wk, yx) and (Hk, Wk, yx) to points (B, G, Hk, Wk, yx)."""
        return reference + self.shift(offsets, offsets.shape[2] - 1, offsets.shape[3] - 1)


class UnboundedRange(nn.Module):
    """Points move anywhere, also off the map, where they read zeros: reference + offset."""

    def forward(self, offsets: Tensor, reference: Tensor) -> Tensor:
        """(B, G, Hk, Wk, yx) and (Hk, Wk, yx) to points (B, G, Hk, Wk, yx)."""
        return reference + offsets


class ClampedPositions(nn.Module):
    """Points move anywhere on the map, and no further: clamp(reference + offset, -1, 1) (DAT++).

    A point that is held at the border along an axis learns nothing along it. Where the reference grid itself leaves the
    map, as DAT++'s does, its last row and column begin so.
    """

    def forward(self, offsets: Tensor, reference: Tensor) -> Tensor:
        """(B, G, Hk, Wk, yx) and (Hk, Wk, yx) to points (B, G, Hk, Wk, yx)."""
        return (reference + offsets).clamp(-1, 1)


class TanhPositions(nn.Module):
    """Points move anywhere on the map: tanh(reference + offset).

    Quirk `tanh_moves_the_grid`: as in the published code, the tanh is taken of the position, so that points without
    an offset stand at tanh(reference), drawn together to within 0.76 of the map.
    """

    def forward(self, offsets: Tensor, reference: Tensor) -> Tensor:
        """(B, G, Hk, Wk, yx) and (Hk, Wk, yx) to points (B, G, Hk, Wk, yx)."""
        return torch.tanh(reference + offsets)
