"""A look at the neighbours before each block (the local perception unit of CMT, in DAT++).

A variant is built as `local_perception(dim)` and maps (B, C, H, W) to (B, C, H, W).
"""

from torch import Tensor, nn


class DepthwisePerception(nn.Module):
    """x + conv(x), with a 3x3 depthwise convolution."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class NoPerception(nn.Module):
    """The block sees its input as it is."""

    def __init__(self, dim: int):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x
