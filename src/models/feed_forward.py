"""What each pixel computes on its own after attention, or with its neighbours as in DAT++.

A variant is built as `feed_forward(dim, hidden_dim)` and maps (B, C, H, W), and the norm before it, to (B, C, H, W):
so that what the norm gives needn't be kept in training.
"""

from torch import Tensor, nn

from src.models.pointwise import Pointwise
from src.models.recomputed import NO_NORM, gelu_then, normed_then


class PixelwiseFeedForward(nn.Module):
    """Two 1x1 convolutions with GELU between them, applied to each pixel alone (DAT)."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.expand = Pointwise(dim, hidden_dim)
        self.project = Pointwise(hidden_dim, dim)

    def forward(self, x: Tensor, norm: nn.Module = NO_NORM) -> Tensor:
        return gelu_then(self.project, normed_then(norm, self.expand, x))


class ConvolutionalFeedForward(PixelwiseFeedForward):
    """Between the two, a 3x3 depthwise convolution beside a skip: hidden features see their neighbours (DAT++)."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__(dim, hidden_dim)
        self.conv = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)

    def forward(self, x: Tensor, norm: nn.Module = NO_NORM) -> Tensor:
        hidden = normed_then(norm, self.expand, x)
        return gelu_then(self.project, hidden + self.conv(hidden))
