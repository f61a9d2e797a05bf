"""Attention inside of windows that tile the map, plain and shifted (Swin; DAT's local blocks)."""

from dataclasses import dataclass

import torch
from einops import rearrange
from timm.layers import trunc_normal_
from torch import Tensor, nn

from src.models.attention.attend import attend
from src.models.geometry import GeometryError, nearest, size
from src.models.stage import Stage


class WindowAttention(nn.Module):
    """Each window of `window_size` x `window_size` pixels attends to itself, with a table of displacements as bias.

    Args:
        dim: channels, split evenly over `num_heads`.
        window_size: side of a window in pixels; must divide the map.
    """

    displacement: Tensor

    def __init__(self, dim: int, num_heads: int, *, window_size: int):
        super().__init__()
        self.num_heads, self.window_size = num_heads, window_size
        self.bias_table = nn.Parameter(torch.zeros(num_heads, 2 * window_size - 1, 2 * window_size - 1))
        trunc_normal_(self.bias_table, std=0.01)
        self.register_buffer("displacement", _displacements(window_size), persistent=False)
        self.to_qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.within_windows(x, mask=None)

    def within_windows(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, C, H, W) to the same; `mask` (windows, 1, q, k) is added to the scores."""
        rows, side = x.shape[2] // self.window_size, self.window_size
        to_windows = "b (three heads d) (rows wy) (cols wx) -> three b (rows cols) heads (wy wx) d"
        q, k, v = rearrange(self.to_qkv(x), to_windows, three=3, heads=self.num_heads, wy=side, wx=side)
        bias = self.bias_table.flatten(1)[:, self.displacement]
        out = attend(q, k, v, bias if mask is None else bias + mask)
        to_map = "b (rows cols) heads (wy wx) d -> b (heads d) (rows wy) (cols wx)"
        return self.proj(rearrange(out, to_map, rows=rows, wy=side))


class ShiftedWindowAttention(WindowAttention):
    """Window attention on windows moved by `shift` pixels, so that neighbours of the last block's windows meet.

    The map is rolled round; pixels that were not neighbours before don't see each other. Quirk `mask_of_minus_100`:
    they are masked by -100, not by minus infinity, as in the published code.

    Args:
        shift: pixels down and to the right.
    """

    mask: Tensor

    def __init__(self, dim: int, num_heads: int, *, window_size: int, shift: int, map_size: tuple[int, int]):
        super().__init__(dim, num_heads, window_size=window_size)
        self.shift = shift
        self.register_buffer("mask", _shift_mask(map_size, window_size, shift), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        rolled = torch.roll(x, (-self.shift, -self.shift), dims=(2, 3))
        return torch.roll(self.within_windows(rolled, self.mask), (self.shift, self.shift), dims=(2, 3))


@dataclass(frozen=True)
class Window:
    """Builds the window attention of a stage."""

    def check(self, stage: Stage) -> None:
        """Windows must tile the map."""
        height, width = stage.map_size
        if height % stage.window_size or width % stage.window_size:
            fits = [w for w in range(2, max(height, width) + 1) if height % w == 0 and width % w == 0]
            raise GeometryError(
                f"stage {stage.name}: window_size {stage.window_size} doesn't divide the {size(stage.map_size)} map; "
                f"nearest window sizes that do: {nearest(fits, stage.window_size)}"
            )

    def build(self, stage: Stage) -> nn.Module:
        return WindowAttention(stage.dim, stage.num_heads, window_size=stage.window_size)


@dataclass(frozen=True)
class ShiftedWindow(Window):
    """Builds the shifted window attention of a stage: shifted by half a window, rounded up as published.

    On a map of a single window there is nothing to shift into, and, as in Swin, the window stays where it is.
    """

    def build(self, stage: Stage) -> nn.Module:
        if stage.map_size == (stage.window_size, stage.window_size):
            return super().build(stage)
        return ShiftedWindowAttention(
            stage.dim,
            stage.num_heads,
            window_size=stage.window_size,
            shift=-(-stage.window_size // 2),
            map_size=stage.map_size,
        )


def _displacements(window_size: int) -> Tensor:
    """For each pair of pixels of a window (q, k), the cell of the flattened table that holds their displacement."""
    axis = torch.arange(window_size)
    pixels = torch.cartesian_prod(axis, axis)
    dy, dx = (pixels[:, None] - pixels[None] + window_size - 1).unbind(-1)
    return dy * (2 * window_size - 1) + dx


def _shift_mask(map_size: tuple[int, int], window_size: int, shift: int) -> Tensor:
    """0 where two pixels of a rolled window were neighbours before, -100 elsewhere: (windows, 1, q, k)."""
    part = [torch.bucketize(torch.arange(n), torch.tensor([n - window_size, n - shift]), right=True) for n in map_size]
    region = part[0][:, None] * 3 + part[1][None]
    tokens = "(rows wy) (cols wx) -> (rows cols) (wy wx)"
    region = rearrange(region, tokens, wy=window_size, wx=window_size)
    apart = region[:, None, :, None] != region[:, None, None, :]
    return torch.zeros(apart.shape).masked_fill(apart, -100.0)
