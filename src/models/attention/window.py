"""Attention inside of windows that tile the map, plain and shifted (Swin; DAT's local blocks)."""

from dataclasses import dataclass

import torch
from einops import rearrange
from timm.layers import trunc_normal_
from torch import Tensor, nn

from src.models.attention.attend import attend, attention_weights
from src.models.attention.heads import from_windows, to_windows
from src.models.looking import Look, to_positions
from src.models.pad import pad_to_multiple, tiled
from src.models.pointwise import Pointwise
from src.models.recomputed import NO_NORM, normed_then
from src.models.stage import Stage


class WindowAttention(nn.Module):
    """Each window of `window_size` x `window_size` pixels attends to itself, with a table of displacements as bias.

    A map that windows don't tile is padded below and to the right; no pixel attends to the padding.

    Args:
        dim: channels, split evenly over `num_heads`.
        window_size: side of a window in pixels.
    """

    kind = "window"
    displacement: Tensor

    def __init__(self, dim: int, num_heads: int, *, window_size: int):
        super().__init__()
        self.num_heads, self.window_size = num_heads, window_size
        self.bias_table = nn.Parameter(torch.empty(num_heads, 2 * window_size - 1, 2 * window_size - 1))
        self.reset_parameters()
        self.register_buffer("displacement", _displacements(window_size), persistent=False)
        self.to_qkv = Pointwise(dim, 3 * dim)
        self.proj = Pointwise(dim, dim)

    def reset_parameters(self) -> None:
        trunc_normal_(self.bias_table, std=0.01)

    def forward(self, x: Tensor, norm: nn.Module = NO_NORM) -> Tensor:
        shifts = self.shifts(x.shape[2], x.shape[3])
        q, k, v, bias = self.compared(x, shifts, norm)
        return self.proj(self.to_map(attend(q, k, v, bias), (x.shape[2], x.shape[3]), shifts))

    def shifts(self, height: int, width: int) -> tuple[int, int]:
        """How far windows are moved on a map of this size, down and to the right: not at all."""
        return 0, 0

    def look(self, x: Tensor, *, weights: bool = True) -> Look:
        """The pixels of each query's window; those that it is kept from, and padding, have weight 0."""
        map_size = (x.shape[2], x.shape[3])
        shifts, side = self.shifts(*map_size), self.window_size
        rows, columns = (torch.arange(-(-n // side) * side, device=x.device) for n in map_size)
        # A map of where its pixels are, cut into windows as any other; every query of a window has all its pixels.
        pixels = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None].roll((-shifts[0], -shifts[1]), (2, 3))
        cut = "1 yx (rows wy) (cols wx) -> 1 (rows cols) 1 1 (wy wx) yx"
        windows = rearrange(pixels, cut, wy=side, wx=side).expand(-1, -1, -1, side * side, -1, -1)
        keys = self.to_map(windows.flatten(4), map_size, shifts)
        keys = rearrange(keys, "1 (k yx) h w -> (h w) k yx", yx=2)
        seen = None
        if weights:
            q, k, _, bias = self.compared(x, shifts)
            seen = self.to_map(attention_weights(q, k, bias), map_size, shifts)
            seen = rearrange(seen, "b (heads k) h w -> b heads (h w) k", heads=self.num_heads)
        return Look(
            kind=self.kind,
            map_size=map_size,
            points=to_positions(keys.float(), map_size).expand(x.shape[0], 1, -1, -1, -1),
            weights=seen,
        )

    def compared(
        self, x: Tensor, shifts: tuple[int, int], norm: nn.Module = NO_NORM
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, windows, heads, pixels, d) by windows moved down and to the right by `shifts`,
        and what is added to their scores."""
        (height, width), side = x.shape[2:], self.window_size
        x = pad_to_multiple(x, side)
        padded, bias = (x.shape[2], x.shape[3]), self.bias_table.flatten(1)[:, self.displacement]
        if any(shifts):
            x = torch.roll(x, (-shifts[0], -shifts[1]), dims=(2, 3))
        if any(shifts) or not tiled((height, width), side):
            bias = bias + _mask((height, width), padded, side, shifts, x.device)

        q, k, v = to_windows(normed_then(norm, self.to_qkv, x), self.num_heads, side, parts=3)
        return q, k, v, bias

    def to_map(self, windows: Tensor, map_size: tuple[int, int], shifts: tuple[int, int]) -> Tensor:
        """What the pixels of windows hold (B, windows, heads, pixels, d), back on the map (B, heads * d, H, W)."""
        (height, width), side = map_size, self.window_size
        padded = (-(-height // side) * side, -(-width // side) * side)
        out = from_windows(windows, padded, side)
        if any(shifts):
            out = torch.roll(out, shifts, dims=(2, 3))
        return out[:, :, :height, :width]


class ShiftedWindowAttention(WindowAttention):
    """Window attention on windows moved by `shift` pixels, so that neighbours of the last block's windows meet.

    The map is rolled round; pixels that were not neighbours before don't see each other. Quirk `mask_of_minus_100`:
    they are masked by -100, not by minus infinity, as in the published code. On an axis of a single window there is
    nothing to shift into, and, as in Swin, the window stays where it is.

    Args:
        shift: pixels down and to the right.
    """

    kind = "shifted_window"

    def __init__(self, dim: int, num_heads: int, *, window_size: int, shift: int):
        super().__init__(dim, num_heads, window_size=window_size)
        self.shift = shift

    def shifts(self, height: int, width: int) -> tuple[int, int]:
        """How far windows are moved on a map of this size, down and to the right."""
        down, right = (self.shift if n > self.window_size else 0 for n in (height, width))
        return down, right


@dataclass(frozen=True)
class Window:
    """Builds the window attention of a stage."""

    def check(self, stage: Stage) -> None:
        """Every map has windows."""

    def build(self, stage: Stage) -> nn.Module:
        return WindowAttention(stage.dim, stage.num_heads, window_size=stage.window_size)


@dataclass(frozen=True)
class ShiftedWindow(Window):
    """Builds the shifted window attention of a stage: shifted by half a window, rounded up as published."""

    def build(self, stage: Stage) -> nn.Module:
        shift = -(-stage.window_size // 2)
        return ShiftedWindowAttention(stage.dim, stage.num_heads, window_size=stage.window_size, shift=shift)


def _displacements(window_size: int) -> Tensor:
    """For each pair of pixels of a window (q, k), the cell of the flattened table that holds their displacement."""
    axis = torch.arange(window_size)
    pixels = torch.cartesian_prod(axis, axis)
    dy, dx = (pixels[:, None] - pixels[None] + window_size - 1).unbind(-1)
    return dy * (2 * window_size - 1) + dx


def _mask(
    map_size: tuple[int, int], padded: tuple[int, int], side: int, shifts: tuple[int, int], device: torch.device
) -> Tensor:
    """What is added to the scores of rolled windows, (windows, 1, q, k): 0, -100 or minus infinity.

    -100 where two pixels were not neighbours before the map was rolled, minus infinity where the key is padding.
    """
    parts, real = [], []
    for n, whole, shift in zip(map_size, padded, shifts, strict=True):
        axis = torch.arange(whole, device=device)
        # Before rolling: the pixels of the last window, which the roll cuts in two, are told apart from the others.
        parts.append((axis >= whole - side).long() + (axis >= whole - shift) if shift else torch.zeros_like(axis))
        real.append((axis + shift) % whole < n)
    cut = "(rows wy) (cols wx) -> (rows cols) (wy wx)"
    part = rearrange(parts[0][:, None] * 3 + parts[1], cut, wy=side, wx=side)
    inside = rearrange(real[0][:, None] & real[1], cut, wy=side, wx=side)
    mask = torch.zeros(1, device=device).where(part[:, :, None] == part[:, None, :], -100.0)
    return mask.masked_fill(~inside[:, None, :], float("-inf"))[:, None]
