"""One block of a stage: attention and a feed-forward network, each behind a norm and beside a skip."""

from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)); in training whole branches are dropped at random.

    Args:
        local_perception: what happens to x before.
        attention, feed_forward: (B, C, H, W), and the norm before it, to (B, C, H, W).
        scale1, scale2: what happens to the branch of attention and of the feed-forward network.
        drop_path_rate: chance of an image to skip a branch.
    """

    def __init__(
        self,
        dim: int,
        *,
        local_perception: nn.Module,
        attention: nn.Module,
        feed_forward: nn.Module,
        scale1: nn.Module,
        scale2: nn.Module,
        drop_path_rate: float,
    ):
        super().__init__()
        self.local_perception = local_perception
        self.norm1, self.attention, self.scale1 = LayerNorm2d(dim, eps=1e-5), attention, scale1
        self.norm2, self.feed_forward, self.scale2 = LayerNorm2d(dim, eps=1e-5), feed_forward, scale2
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = self.local_perception(x)
        x = x + self.drop_path(self.scale1(self.attention(x, self.norm1)))
        return x + self.drop_path(self.scale2(self.feed_forward(x, self.norm2)))
