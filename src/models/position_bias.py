"""What a query adds to a key's score for where the key was read (DAT, eq. 9).

A variant is built as `position_bias(num_heads, map_size, key_map_size)` and maps points (B, G, Hk, Wk, yx) and
positions of the queries (H, W, yx) to a bias that broadcasts to (B, heads, H * W, Hk * Wk), or to None.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import trunc_normal_
from torch import Tensor, nn


class RelativeBias(nn.Module):
    """A table over displacements, read bilinearly where query and displaced key really are.

    The table holds each displacement between two pixels of the map, (heads, 2H - 1, 2W - 1); heads of an offset
    group share the group's points.
    """

    def __init__(self, num_heads: int, map_size: tuple[int, int], key_map_size: tuple[int, int]):
        super().__init__()
        height, width = map_size
        self.bias_table = nn.Parameter(torch.zeros(num_heads, 2 * height - 1, 2 * width - 1))
        trunc_normal_(self.bias_table, std=0.01)

    def forward(self, points: Tensor, queries: Tensor) -> Tensor:
        batch, groups = points.shape[:2]
        # Turned to (x, y) while still small, and made contiguous: grid_sample is slow on a permuted grid.
        keys = rearrange(points.flip(-1), "b g hk wk xy -> (b g) 1 (hk wk) xy").contiguous()
        queries = rearrange(queries.flip(-1), "h w xy -> 1 (h w) 1 xy").contiguous()
        displacement = (queries - keys) * 0.5  # of two positions in [-1, 1]: back into [-1, 1]
        grouped = rearrange(self.bias_table, "(g heads) dy dx -> g heads dy dx", g=groups)
        table = grouped.repeat(batch, 1, 1, 1).to(displacement.dtype)
        bias = F.grid_sample(table, displacement, mode="bilinear", align_corners=True)
        return rearrange(bias, "(b g) heads q k -> b (g heads) q k", g=groups)


class FixedBias(nn.Module):
    """A number for each head, query and key, wherever the key has moved to (row "Fixed" of DAT, Table 6)."""

    def __init__(self, num_heads: int, map_size: tuple[int, int], key_map_size: tuple[int, int]):
        super().__init__()
        (height, width), (key_height, key_width) = map_size, key_map_size
        self.bias_table = nn.Parameter(torch.zeros(num_heads, height * width, key_height * key_width))
        trunc_normal_(self.bias_table, std=0.01)

    def forward(self, points: Tensor, queries: Tensor) -> Tensor:
        return self.bias_table


class NoBias(nn.Module):
    """Scores know nothing of positions."""

    def __init__(self, num_heads: int, map_size: tuple[int, int], key_map_size: tuple[int, int]):
        super().__init__()

    def forward(self, points: Tensor, queries: Tensor) -> None:
        return None
