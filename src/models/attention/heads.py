"""Between maps and the heads of attention.

Maps are channels last, so a pixel's channels lie side by side. They are taken apart and put together in that order:
then each way is one pass over memory, and so is its gradient. In the order of the shapes, (B, C, H, W), a gradient
would be turned round twice.
"""

from einops import rearrange
from torch import Tensor


def to_heads(x: Tensor, num_heads: int, *, parts: int = 1) -> tuple[Tensor, ...]:
    """A map (B, parts * heads * d, H, W) to `parts` of (B, heads, H * W, d)."""
    apart = "b h w (parts heads d) -> b (h w) parts heads d"
    each = rearrange(x.permute(0, 2, 3, 1), apart, parts=parts, heads=num_heads).unbind(2)
    return tuple(rearrange(part, "b pixels heads d -> b heads pixels d").contiguous() for part in each)


def to_map(out: Tensor, map_size: tuple[int, int]) -> Tensor:
    """(B, heads, H * W, d) back to a map (B, heads * d, H, W)."""
    return rearrange(out, "b heads (h w) d -> b h w (heads d)", h=map_size[0]).permute(0, 3, 1, 2)


def to_windows(x: Tensor, num_heads: int, side: int, *, parts: int) -> tuple[Tensor, ...]:
    """A map (B, parts * heads * d, H, W), tiled by windows, to `parts` of (B, windows, heads, side * side, d)."""
    apart = "b (rows wy) (cols wx) (parts heads d) -> b rows wy cols wx parts heads d"
    pixels = x.permute(0, 2, 3, 1)
    each = rearrange(pixels, apart, wy=side, wx=side, parts=parts, heads=num_heads).unbind(5)
    return tuple(rearrange(part, "b rows wy cols wx heads d -> b (rows cols) heads (wy wx) d") for part in each)


def from_windows(windows: Tensor, map_size: tuple[int, int], side: int) -> Tensor:
    """(B, windows, heads, side * side, d) back to the map (B, heads * d, H, W) that they tile."""
    together = "b (rows cols) heads (wy wx) d -> b (rows wy) (cols wx) (heads d)"
    return rearrange(windows, together, rows=map_size[0] // side, wy=side).permute(0, 3, 1, 2)
