"""Attention of every pixel to every pixel (ViT): the control without any choice of keys."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import trunc_normal_
from torch import Tensor, nn

from src.models.attention.attend import attend, attention_weights
from src.models.attention.heads import to_heads, to_map
from src.models.looking import Look, pixel_positions
from src.models.pointwise import Pointwise
from src.models.recomputed import NO_NORM, normed_then
from src.models.stage import Stage


class GlobalAttention(nn.Module):
    """All pixels are keys, with a table of displacements as bias, as window and deformable attention have.

    On a map of another size the table is stretched.

    Args:
        dim: channels, split evenly over `num_heads`.
        map_size: height and width that the table is made for.
    """

    def __init__(self, dim: int, num_heads: int, *, map_size: tuple[int, int]):
        super().__init__()
        self.num_heads = num_heads
        self.bias_table = nn.Parameter(torch.empty(num_heads, *(2 * n - 1 for n in map_size)))
        self.reset_parameters()
        self.to_qkv = Pointwise(dim, 3 * dim)
        self.proj = Pointwise(dim, dim)

    def reset_parameters(self) -> None:
        trunc_normal_(self.bias_table, std=0.01)

    def forward(self, x: Tensor, norm: nn.Module = NO_NORM) -> Tensor:
        q, k, v = self.queries_keys_values(x, norm)
        out = attend(q, k, v, self.bias(x.shape[2], x.shape[3]))
        return self.proj(to_map(out, (x.shape[2], x.shape[3])))

    def queries_keys_values(self, x: Tensor, norm: nn.Module = NO_NORM) -> tuple[Tensor, ...]:
        """Each (B, heads, H * W, d)."""
        return to_heads(normed_then(norm, self.to_qkv, x), self.num_heads, parts=3)

    def look(self, x: Tensor, *, weights: bool = True) -> Look:
        """All pixels, shared by all queries."""
        map_size = (x.shape[2], x.shape[3])
        q, k, _ = self.queries_keys_values(x)
        return Look(
            kind="global",
            map_size=map_size,
            points=pixel_positions(map_size, x.device).expand(x.shape[0], 1, 1, -1, -1),
            weights=attention_weights(q, k, self.bias(*map_size)) if weights else None,
        )

    def bias(self, height: int, width: int) -> Tensor:
        """(heads, H * W, H * W)."""
        table: Tensor = self.bias_table
        wanted = (2 * height - 1, 2 * width - 1)
        if table.shape[1:] != wanted:
            table = F.interpolate(table[None], wanted, mode="bilinear", align_corners=True)[0]
        rows, cols = (torch.arange(n, device=table.device) for n in (height, width))
        dy, dx = (axis[:, None] - axis + len(axis) - 1 for axis in (rows, cols))
        by_row = table[:, dy]  # (heads, qy, ky, 2W - 1)
        return rearrange(by_row[:, :, :, dx], "heads qy ky qx kx -> heads (qy qx) (ky kx)")


@dataclass(frozen=True)
class Global:
    """Builds the global attention of a stage."""

    def check(self, stage: Stage) -> None:
        """Every map will do."""

    def build(self, stage: Stage) -> nn.Module:
        return GlobalAttention(stage.dim, stage.num_heads, map_size=stage.map_size)
