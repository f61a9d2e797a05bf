"""From the image to the first map.

A variant is built as `stem(in_channels, dim, patch_size)` and maps images (B, in_channels, H, W) to
(B, C, ceil(H / patch), ceil(W / patch)).
"""

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from src.models.geometry import GeometryError
from src.models.pad import pad_to_multiple


class PatchStem(nn.Sequential):
    """Each patch is projected on its own (DAT, Fig. 3)."""

    def __init__(self, in_channels: int, dim: int, patch_size: int):
        super().__init__(nn.Conv2d(in_channels, dim, patch_size, patch_size), LayerNorm2d(dim, eps=1e-5))
        self.patch_size = patch_size

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(pad_to_multiple(images, self.patch_size))


class OverlappedStem(nn.Sequential):
    """Two 3x3 convolutions whose windows overlap, as in DAT++; the first halves the image, the second does the rest.

    Raises:
        GeometryError: `patch_size` is neither 2 nor 4.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int):
        if patch_size not in (2, 4):
            raise GeometryError(f"patch_size {patch_size} doesn't suit the overlapped stem; sizes that do: 2 and 4")
        super().__init__(
            nn.Conv2d(in_channels, dim // 2, 3, 2, 1),
            LayerNorm2d(dim // 2, eps=1e-5),
            nn.GELU(),
            nn.Conv2d(dim // 2, dim, 3, patch_size // 2, 1),
            LayerNorm2d(dim, eps=1e-5),
        )
