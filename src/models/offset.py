"""Where to look: offsets of the reference points, read from the queries (DAT, Fig. 2b).

A variant is built as `offset(dim, offset_groups, stride=..., kernel_size=...)` and maps queries (B, C, H, W) to raw
offsets (B, G, Hk, Wk, yx), which `offset_range.py` turns into points.
"""

import torch
from einops import rearrange
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from src.models.geometry import GeometryError, nearest
from src.models.pad import pad_to_multiple
from src.models.pointwise import Pointwise
from src.models.stage import Stage


class LearnedOffset(nn.Module):
    """A depthwise convolution, a norm, GELU and a projection to two numbers, shared by all groups.

    The norm isn't in the paper's figure, but in its code; the last projection has no bias, so that no constant
    shift is learnt for all points.

    Args:
        dim: channels of the queries, split evenly over `offset_groups`.
        stride: pixels between neighbouring points.
        kernel_size: side of the depthwise convolution: what a point sees before it moves. Odd ones are centred on
            their point; as large as the stride, they tile the map.
    """

    def __init__(self, dim: int, offset_groups: int, *, stride: int, kernel_size: int):
        super().__init__()
        channels = dim // offset_groups
        self.offset_groups = offset_groups
        self.tile = kernel_size if kernel_size == stride else 1
        padding = kernel_size // 2 if self.tile == 1 else 0
        self.net = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size, stride, padding, groups=channels),
            LayerNorm2d(channels, eps=1e-5),
            nn.GELU(),
            Pointwise(channels, 2, bias=False),
        )

    @staticmethod
    def check(stage: Stage) -> None:
        """Each pixel must be seen by some point, and each point have a pixel in its middle."""
        kernel, stride = stage.offset_kernel_size, stage.stride
        if (kernel % 2 == 0 and kernel != stride) or kernel < stride:
            works = [k for k in range(stride, stride + kernel + 2) if k % 2 or k == stride]
            raise GeometryError(
                f"stage {stage.name}: offset_kernel_size {kernel} must be the stride {stride}, or odd and above it, or "
                f"pixels are lost between the kernels; nearest sizes that work: {nearest(works, kernel)}"
            )

    def forward(self, q: Tensor) -> Tensor:
        to_groups = "b h w (g c) -> (b g) h w c"  # channels last, as its gradient then is too
        grouped = rearrange(q.permute(0, 2, 3, 1), to_groups, g=self.offset_groups).permute(0, 3, 1, 2)
        grouped = pad_to_multiple(grouped, self.tile)
        return rearrange(self.net(grouped), "(b g) yx hk wk -> b g hk wk yx", g=self.offset_groups)


class ZeroOffset(nn.Module):
    """Points stay on the reference grid. It has no parameters, and looks at no query.

    Args:
        dim, kernel_size: not used; a network would need them.
        stride: pixels between neighbouring points.
    """

    def __init__(self, dim: int, offset_groups: int, *, stride: int, kernel_size: int):
        super().__init__()
        self.offset_groups, self.stride = offset_groups, stride

    def forward(self, q: Tensor) -> Tensor:
        batch, _, height, width = q.shape
        points = (-(-height // self.stride), -(-width // self.stride))
        return torch.zeros(batch, self.offset_groups, *points, 2, dtype=q.dtype, device=q.device)
