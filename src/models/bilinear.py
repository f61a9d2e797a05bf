"""Reading a map between its pixels: features at the points, and the bias table at displacements.

Two implementations of one function. `grid_sample` is torch's own, and the fastest; on CUDA its gradient adds up in a
different order each time, so that two runs of one seed differ. `gather` blends the four neighbours that it looks up
one by one: deterministic, and understood by every exporter, for several times the time and memory.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def grid_sample(x: Tensor, grid: Tensor) -> Tensor:
    """(N, C, H, W) read at (N, P, Q, xy) to (N, C, P, Q).

    Positions -1 and 1 are the centres of the first and the last pixel; outside of the map there are zeros.
    """
    return F.grid_sample(x, grid, mode="bilinear", align_corners=True)


def gather(x: Tensor, grid: Tensor) -> Tensor:
    """The same, by four look-ups in a table of pixels, whose gradient is summed in a fixed order."""
    batch, channels, height, width = x.shape
    table = x.permute(0, 2, 3, 1).reshape(-1, channels)  # a row for each pixel of each image
    first_row = torch.arange(batch, device=x.device).view(-1, 1, 1) * (height * width)
    columns, rows = _neighbours(grid[..., 0], width), _neighbours(grid[..., 1], height)
    out = torch.zeros((), dtype=x.dtype, device=x.device)
    for row, row_weight in rows:
        for column, column_weight in columns:
            read = F.embedding(first_row + row * width + column, table)
            out = out + read * (row_weight * column_weight)[..., None]
    return out.permute(0, 3, 1, 2)


def _neighbours(position: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """The two pixels beside positions along an axis, each with its weight, which is 0 off the map."""
    pixel = (position + 1) * ((size - 1) / 2)
    before = pixel.floor()
    share = pixel - before
    pairs = []
    for at, weight in ((before, 1 - share), (before + 1, share)):
        pairs.append((at.clamp(0, size - 1).long(), weight * ((at >= 0) & (at < size))))
    return pairs


def auto(x: Tensor, grid: Tensor) -> Tensor:
    """`gather` where torch is asked for determinism (`trainer.deterministic=true`), `grid_sample` elsewhere."""
    return (gather if torch.are_deterministic_algorithms_enabled() else grid_sample)(x, grid)


def gradients(
    read: Callable[[Tensor, Tensor], Tensor], x: Tensor, grid: Tensor, grad: Tensor, needed: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Of what was read, from that of read(x, grid); x is read anew unless `read` is `grid_sample`.

    Args:
        needed: whether the gradient of x is, and that of the grid; the other may be anything.
    """
    if by_grid_sample(read):
        interpolation, padding, align_corners = 0, 0, True  # bilinear, zeros
        made: tuple[Tensor, Tensor] = torch.ops.aten.grid_sampler_2d_backward(
            grad, x, grid, interpolation, padding, align_corners, needed
        )
        return made
    of_x, of_grid = torch.func.vjp(read, x, grid)[1](grad)
    return of_x, of_grid


def by_grid_sample(read: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Whether this implementation is `grid_sample`, now."""
    return read is grid_sample or (read is auto and not torch.are_deterministic_algorithms_enabled())


KERNELS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"auto": auto, "grid_sample": grid_sample, "gather": gather}


def kernel(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The implementation called `name`.

    Raises:
        ValueError: there is none.
    """
    if name not in KERNELS:
        raise ValueError(f"bilinear_kernel is {name!r}; it must be one of {', '.join(KERNELS)}")
    return KERNELS[name]
