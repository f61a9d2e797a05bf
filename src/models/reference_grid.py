"""Where the points start from: uniform grids of keys and of queries, (y, x) in [-1, 1] (DAT, Sec. 3.2).

Always float32: in bfloat16 neighbouring positions of a large map fall together.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Grid(Protocol):
    """What deformable attention needs of a grid."""

    def keys(self, map_size: Sequence[int], key_map_size: Sequence[int], device: torch.device) -> Tensor: ...

    def queries(self, map_size: Sequence[int], device: torch.device) -> Tensor: ...


class PublishedGrid:
    """The grids of the published DAT code, kept for its weights.

    Quirk `half_pixel_grid_on_corner_aligned_map`: positions are (i + 0.5) / H * 2 - 1, which are pixel centres for
    `align_corners=False`, but features and bias are read with `align_corners=True`. A zero offset therefore reads
    up to half a pixel towards the middle of the map, and one step of a query is (H - 1) / H cells of the bias table.
    """

    def keys(self, map_size: Sequence[int], key_map_size: Sequence[int], device: torch.device) -> Tensor:
        """Reference points (Hk, Wk, yx)."""
        return _mesh(*(_half_pixel(n, device) for n in key_map_size))

    def queries(self, map_size: Sequence[int], device: torch.device) -> Tensor:
        """Positions of the queries (H, W, yx)."""
        return _mesh(*(_half_pixel(n, device) for n in map_size))


class ShiftedGrid:
    """The grids of the published DAT++ code, kept for its weights: queries on the pixels, keys beside them.

    Quirk `keys_half_a_cell_off`: keys are (i + 0.5) / (Hk - 1) * 2 - 1, half a step to the lower right of where
    Hk points from border to border would stand; the last row and column are off the map.
    """

    def keys(self, map_size: Sequence[int], key_map_size: Sequence[int], device: torch.device) -> Tensor:
        """Reference points (Hk, Wk, yx)."""
        return _mesh(*((torch.arange(n, device=device) + 0.5) / (n - 1) * 2 - 1 for n in key_map_size))

    def queries(self, map_size: Sequence[int], device: torch.device) -> Tensor:
        """Positions of the queries (H, W, yx)."""
        return _mesh(*(_cell_centres(n, n, device) for n in map_size))


class AlignedGrid:
    """Grids on the pixels: queries at pixel centres, keys at the centres of the cells they stand for.

    With stride 1, points without offsets lie on the pixels and sampling changes nothing.
    """

    def keys(self, map_size: Sequence[int], key_map_size: Sequence[int], device: torch.device) -> Tensor:
        """Reference points (Hk, Wk, yx)."""
        return _mesh(*(_cell_centres(n, cells, device) for n, cells in zip(map_size, key_map_size, strict=True)))

    def queries(self, map_size: Sequence[int], device: torch.device) -> Tensor:
        """Positions of the queries (H, W, yx)."""
        return self.keys(map_size, map_size, device)


def _half_pixel(n: int, device: torch.device) -> Tensor:
    return (torch.arange(n, dtype=torch.float32, device=device) + 0.5) / n * 2 - 1


def _cell_centres(n: int, cells: int, device: torch.device) -> Tensor:
    pixel = (torch.arange(cells, dtype=torch.float32, device=device) + 0.5) * (n / cells) - 0.5
    return pixel / (n - 1) * 2 - 1


def _mesh(y: Tensor, x: Tensor) -> Tensor:
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)
