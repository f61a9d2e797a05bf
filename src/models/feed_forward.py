"""What each pixel computes on its own after attention, or with its neighbours as in DAT++.

A variant is built as `feed_forward(dim, hidden_dim)` and maps (B, C, H, W) to (B, C, H, W).
"""

from torch import Tensor, nn


class PixelwiseFeedForward(nn.Module):
    """Two 1x1 convolutions with GELU between them, applied to each pixel alone (DAT)."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.expand = nn.Conv2d(dim, hidden_dim, 1)
        self.project = nn.Conv2d(hidden_dim, dim, 1)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.act(self.expand(x)))


class ConvolutionalFeedForward(PixelwiseFeedForward):
    """Between the two, a 3x3 depthwise convolution beside a skip: hidden features see their neighbours (DAT++)."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__(dim, hidden_dim)
        self.conv = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.expand(x)
        return self.project(self.act(hidden + self.conv(hidden)))
