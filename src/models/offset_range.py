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
        cells = offsets.new_tensor(offsets.shape[2:4])
        return reference + offsets.tanh() * (self.factor / cells)


class UnboundedRange(nn.Module):
    """Points move anywhere, also off the map, where they read zeros: reference + offset."""

    def forward(self, offsets: Tensor, reference: Tensor) -> Tensor:
        """(B, G, Hk, Wk, yx) and (Hk, Wk, yx) to points (B, G, Hk, Wk, yx)."""
        return reference + offsets


class TanhPositions(nn.Module):
    """Points move anywhere on the map: tanh(reference + offset).

    Quirk `tanh_moves_the_grid`: as in the published code, the tanh is taken of the position, so that points without
    an offset stand at tanh(reference), drawn together to within 0.76 of the map.
    """

    def forward(self, offsets: Tensor, reference: Tensor) -> Tensor:
        """(B, G, Hk, Wk, yx) and (Hk, Wk, yx) to points (B, G, Hk, Wk, yx)."""
        return torch.tanh(reference + offsets)
