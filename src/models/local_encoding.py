"""Position by convolution: what is added to the attention's output beside the weighted values.

A variant is built as `local_encoding(dim)` and maps queries (B, C, H, W) to what is added, of the same shape.
"""

import torch
from torch import Tensor, nn


class DepthwiseEncoding(nn.Module):
    """A 3x3 depthwise convolution of the queries (row "DWConv" of DAT, Table 6)."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, q: Tensor) -> Tensor:
        return self.conv(q)


class NoEncoding(nn.Module):
    """Nothing is added."""

    def __init__(self, dim: int):
        super().__init__()

    def forward(self, q: Tensor) -> Tensor:
        return torch.zeros((), dtype=q.dtype, device=q.device)
