"""Between two stages: half the map, more channels.

A variant is built as `downsampling(dim, out_dim)` and maps (B, C, H, W) to (B, C', ceil(H / 2), ceil(W / 2)).
"""

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from src.models.pad import pad_to_multiple


class PatchDownsampling(nn.Sequential):
    """Patches of 2x2 pixels, each projected on its own, and a norm (DAT)."""

    def __init__(self, dim: int, out_dim: int):
        super().__init__(nn.Conv2d(dim, out_dim, 2, 2, bias=False), LayerNorm2d(out_dim, eps=1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad_to_multiple(x, 2))


class OverlappedDownsampling(nn.Sequential):
    """A 3x3 convolution with stride 2, whose windows overlap, and a norm (DAT++)."""

    def __init__(self, dim: int, out_dim: int):
        super().__init__(nn.Conv2d(dim, out_dim, 3, 2, 1, bias=False), LayerNorm2d(out_dim, eps=1e-5))
