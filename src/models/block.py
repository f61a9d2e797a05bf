"""One block of a stage: attention and a feed-forward network, each behind a norm and beside a skip."""

from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn


class FeedForward(nn.Sequential):
    """Two 1x1 convolutions with GELU between them, applied to each pixel alone."""

    def __init__(self, dim: int, *, hidden_dim: int):
        super().__init__(nn.Conv2d(dim, hidden_dim, 1), nn.GELU(), nn.Conv2d(hidden_dim, dim, 1))


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)); in training whole branches are dropped at random.

    Args:
        attention: (B, C, H, W) to (B, C, H, W).
        drop_path_rate: chance of an image to skip a branch.
    """

    def __init__(self, dim: int, attention: nn.Module, *, hidden_dim: int, drop_path_rate: float):
        super().__init__()
        self.norm1, self.attention = LayerNorm2d(dim, eps=1e-5), attention
        self.norm2, self.feed_forward = LayerNorm2d(dim, eps=1e-5), FeedForward(dim, hidden_dim=hidden_dim)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.feed_forward(self.norm2(x)))
