"""What a query adds to a key's score for where the key was read (DAT, eq. 9).

A variant is built as `position_bias(num_heads, offset_groups, map_size, key_map_size)` and maps points
(B, G, Hk, Wk, yx) and positions of the queries (H, W, yx) to a bias that broadcasts to (B, heads, H * W, Hk * Wk), to a
table that attention reads itself, or to None. Heads of an offset group share the group's points.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import trunc_normal_
from torch import Tensor, nn

from src.models import bilinear
from src.models.deformable_op import BiasTable, choose


class RelativeBias(nn.Module):
    """A table over displacements, read bilinearly where query and displaced key really are.

    The table holds each displacement between two pixels of the map, (heads, 2H - 1, 2W - 1). On a map of another size
    it is stretched: positions are relative to the map.

    Args:
        kernel: name of an implementation in `bilinear.py`.
        deformable_kernel: name of an implementation of attention with this bias, in `deformable_op/choose.py`.
    """

    def __init__(
        self,
        num_heads: int,
        offset_groups: int,
        map_size: tuple[int, int],
        key_map_size: tuple[int, int],
        *,
        kernel: str,
        deformable_kernel: str = "auto",  # what runs are that were recorded before there was a choice
    ):
        super().__init__()
        self.read, self.deformable_kernel = bilinear.kernel(kernel), choose.check(deformable_kernel)
        height, width = map_size
        self.bias_table = nn.Parameter(torch.empty(num_heads, 2 * height - 1, 2 * width - 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        trunc_normal_(self.bias_table, std=0.01)

    def forward(self, points: Tensor, queries: Tensor) -> BiasTable:
        return BiasTable(self.bias_table, points, queries, self.read, self.deformable_kernel)


class ContinuousBias(nn.Module):
    """A small network over displacements, spaced logarithmically (the log-CPB of Swin V2, eq. 4, in DAT++'s code).

    It has no table that belongs to a map. The heads of a group have an output each; groups share the network.
    """

    hidden_dim = 32  # as published

    def __init__(self, num_heads: int, offset_groups: int, map_size: tuple[int, int], key_map_size: tuple[int, int]):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2, self.hidden_dim), nn.ReLU(), nn.Linear(self.hidden_dim, num_heads // offset_groups, bias=False)
        )

    def forward(self, points: Tensor, queries: Tensor) -> Tensor:
        keys = rearrange(points, "b g hk wk yx -> b g 1 (hk wk) yx")
        displacement = 4 * (rearrange(queries, "h w yx -> (h w) 1 yx").to(keys.dtype) - keys)  # in [-8, 8]
        spaced = displacement.sign() * (displacement.abs() + 1).log2() / 3  # log2(8): in about [-1, 1]
        return rearrange(self.net(spaced), "b g q k heads -> b (g heads) q k")


class FixedBias(nn.Module):
    """A number for each head, query and key, wherever the key has moved to (row "Fixed" of DAT, Table 6).

    On a map of another size the numbers are interpolated bilinearly, over the queries and over the keys.
    """

    def __init__(self, num_heads: int, offset_groups: int, map_size: tuple[int, int], key_map_size: tuple[int, int]):
        super().__init__()
        self.map_size, self.key_map_size = map_size, key_map_size
        (height, width), (key_height, key_width) = map_size, key_map_size
        self.bias_table = nn.Parameter(torch.empty(num_heads, height * width, key_height * key_width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        trunc_normal_(self.bias_table, std=0.01)

    def forward(self, points: Tensor, queries: Tensor) -> Tensor:
        map_size, key_map_size = tuple(queries.shape[:2]), tuple(points.shape[2:4])
        if (map_size, key_map_size) == (self.map_size, self.key_map_size):
            return self.bias_table
        table: Tensor = rearrange(self.bias_table, "heads q (hk wk) -> heads q hk wk", hk=self.key_map_size[0])
        table = F.interpolate(table, key_map_size, mode="bilinear", align_corners=True)
        table = rearrange(table, "heads (h w) hk wk -> heads (hk wk) h w", h=self.map_size[0])
        table = F.interpolate(table, map_size, mode="bilinear", align_corners=True)
        return rearrange(table, "heads k h w -> heads (h w) k")


class NoBias(nn.Module):
    """Scores know nothing of positions."""

    def __init__(self, num_heads: int, offset_groups: int, map_size: tuple[int, int], key_map_size: tuple[int, int]):
        super().__init__()

    def forward(self, points: Tensor, queries: Tensor) -> None:
        return None
