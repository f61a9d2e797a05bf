"""Attention of each pixel to the pixels around it (NAT, Hassani et al. 2023; the neighborhood blocks of DAT++)."""

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import trunc_normal_
from torch import Tensor, nn

from src.models.attention.attend import attend, attention_weights
from src.models.attention.heads import to_heads, to_map
from src.models.geometry import GeometryError, nearest
from src.models.looking import Look, to_positions
from src.models.pointwise import Pointwise
from src.models.recomputed import NO_NORM, normed_then
from src.models.stage import Stage

# Longest side of a tile, in pixels. Measured for neighborhoods of 3 to 13 pixels on maps of 7x7 to 56x56: smaller tiles
# copy more keys, larger ones mask more of the scores.
TILE = 7

# NATTEN has kernels for CPUs too, which take four to five times as long as the tiles.
NATTEN_DEVICES = ("cuda",)


class NeighborhoodAttention(nn.Module):
    """Each pixel attends to the `neighborhood_size` x `neighborhood_size` pixels around it, with a table of
    displacements as bias.

    At the border of the map the neighborhood moves inwards and so keeps its size. On an axis shorter than that it is
    the whole axis; the published code pads such a map with zeros instead and attends to those too.

    Keys of one pixel are shared with its neighbors, so tiles of queries each read the one region of keys that holds all
    their neighborhoods, and the scores of keys outside of a query's own are masked. That is several times as many
    scores as are needed, but dense products, and far fewer copies of the keys than one per query and neighbor.

    Args:
        dim: channels, split evenly over `num_heads`.
        neighborhood_size: side of the neighborhood in pixels, odd.
    """

    def __init__(self, dim: int, num_heads: int, *, neighborhood_size: int):
        super().__init__()
        self.dim, self.num_heads, self.neighborhood_size = dim, num_heads, neighborhood_size
        self.bias_table = nn.Parameter(torch.empty(num_heads, 2 * neighborhood_size - 1, 2 * neighborhood_size - 1))
        self.reset_parameters()
        self.to_qkv = Pointwise(dim, 3 * dim)
        self.proj = Pointwise(dim, dim)

    def reset_parameters(self) -> None:
        trunc_normal_(self.bias_table, std=0.02)

    def forward(self, x: Tensor, norm: nn.Module = NO_NORM) -> Tensor:
        out = self.attend_nearby(*(part.unflatten(2, x.shape[2:]) for part in self.queries_keys_values(x, norm)))
        return self.proj(to_map(out.flatten(2, 3), (x.shape[2], x.shape[3])))

    def queries_keys_values(self, x: Tensor, norm: nn.Module = NO_NORM) -> tuple[Tensor, ...]:
        """Each (B, heads, H * W, d)."""
        return to_heads(normed_then(norm, self.to_qkv, x), self.num_heads, parts=3)

    def look(self, x: Tensor, *, weights: bool = True) -> Look:
        """The pixels round each query, moved inwards at the border; by the definition, not in tiles."""
        height, width = x.shape[2:]
        axes = [_nearby(length, self.neighborhood_size, x.device) for length in (height, width)]
        (rows, down), (columns, right) = axes
        rows, columns = rows[:, None, :, None], columns[None, :, None, :]  # of query rows and columns, key rows and ...
        pixels = torch.stack(torch.broadcast_tensors(rows, columns), -1).flatten(2, 3).flatten(0, 1)
        seen = None
        if weights:
            q, k, _ = self.queries_keys_values(x)
            k = k[:, :, pixels[..., 0] * width + pixels[..., 1]]
            bias = self.bias_table[:, down[:, None, :, None], right[None, :, None, :]].flatten(3, 4).flatten(1, 2)
            seen = attention_weights(q[:, :, :, None], k, bias[:, :, None]).squeeze(3)
        return Look(
            kind="neighborhood",
            map_size=(height, width),
            points=to_positions(pixels.float(), (height, width)).expand(x.shape[0], 1, -1, -1, -1),
            weights=seen,
        )

    def attend_nearby(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Maps of queries, keys and values (B, heads, H, W, d) to the map of what the queries read."""
        height, width = q.shape[2:4]
        y, x = (_Axis.of(length, self.neighborhood_size, q.device) for length in (height, width))

        # Tiles of queries, and the region of keys that each tile reads.
        queries = rearrange(y.queries, "ty qy -> ty 1 qy 1") * width + rearrange(x.queries, "tx qx -> 1 tx 1 qx")
        keys = rearrange(y.keys, "ty ky -> ty 1 ky 1") * width + rearrange(x.keys, "tx kx -> 1 tx 1 kx")
        q, k, v = _pixels(q, queries), _pixels(k, keys), _pixels(v, keys)

        # A displacement's cell of the table; a row or column of minus infinity for keys outside of the neighborhood.
        table = F.pad(self.bias_table, (0, 1, 0, 1), value=float("-inf"))
        bias = table.index_select(1, y.cells.flatten()).index_select(2, x.cells.flatten())
        to_tiles = "heads (ty qy ky) (tx qx kx) -> heads ty tx (qy qx) (ky kx)"
        (ty, qy, _), (tx, qx, _) = y.cells.shape, x.cells.shape
        bias = rearrange(bias, to_tiles, ty=ty, qy=qy, tx=tx, qx=qx)

        out = rearrange(attend(q, k, v, bias), "b heads ty tx q d -> b heads (ty tx q) d")
        # Back to the map: where in the tiles each of its pixels is. What the last tiles have too much is left behind.
        row, column = (torch.arange(length, device=q.device) for length in (height, width))
        tile_row, tile_column = row // qy, column // qx
        tile = (tile_row * tx)[:, None] + tile_column
        place = ((row - tile_row * qy) * qx)[:, None] + column - tile_column * qx
        out = out.index_select(2, (tile * qy * qx + place).flatten())
        return rearrange(out, "b heads (h w) d -> b heads h w d", h=height)

    def masked_macs(self, height: int, width: int) -> int:
        """Multiply-accumulates of one image that are computed for masked keys, and that the definition doesn't have."""
        y, x = (_cut(length, self.neighborhood_size) for length in (height, width))
        scores = y.tiles * y.side * y.region * x.tiles * x.side * x.region
        defined = height * min(self.neighborhood_size, height) * width * min(self.neighborhood_size, width)
        return 2 * self.dim * (scores - defined)  # q k^T and weights v


class NattenNeighborhoodAttention(NeighborhoodAttention):
    """The same attention by NATTEN's kernels, where they can do it; in tiles elsewhere.

    They need a map that holds the neighborhood, more than one pixel in it, and a device of `NATTEN_DEVICES`; and they
    can't be compiled or exported.
    """

    def attend_nearby(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        size = self.neighborhood_size
        fits = q.device.type in NATTEN_DEVICES and 1 < size <= min(q.shape[2:4])
        if torch.compiler.is_compiling() or not fits:
            return super().attend_nearby(q, k, v)
        natten = natten_with_bias()
        if natten is None:
            return super().attend_nearby(q, k, v)
        scores = natten.na2d_qk(q * q.shape[-1] ** -0.5, k, kernel_size=size, dilation=1, rpb=self.bias_table)
        return natten.na2d_av(scores.softmax(dim=-1).to(v.dtype), v, kernel_size=size, dilation=1)


def natten_with_bias() -> ModuleType | None:
    """NATTEN's functions, if a version is installed that has the bias and works with this PyTorch.

    Versions up to 0.17.5 have it, but as published they can't be imported with torch 2.8 or later. Since 0.20 there are
    only fused kernels, without a bias.
    """
    try:
        functions = importlib.import_module("natten.functional")
    except ImportError:
        return None
    return functions if hasattr(functions, "na2d_qk") else None


@dataclass(frozen=True)
class Neighborhood:
    """Builds the neighborhood attention of a stage, with NATTEN's kernels if they are installed."""

    def check(self, stage: Stage) -> None:
        """A neighborhood has a pixel in its middle; any map will do."""
        size = stage.neighborhood_size
        if not isinstance(size, int) or size < 1 or size % 2 == 0:
            odd = nearest(range(1, max(int(size), 1) + 3, 2), size)
            raise GeometryError(
                f"stage {stage.name}: neighborhood_size {size!r} isn't an odd whole number of at least 1; "
                f"nearest neighborhood sizes that are: {odd}"
            )

    def build(self, stage: Stage) -> nn.Module:
        kind = NeighborhoodAttention if natten_with_bias() is None else NattenNeighborhoodAttention
        return kind(stage.dim, stage.num_heads, neighborhood_size=stage.neighborhood_size)


class _Cut(NamedTuple):
    """An axis in tiles: their number, their side, and the side of the region of keys that one reads, in pixels."""

    tiles: int
    side: int
    region: int


def _cut(length: int, neighborhood_size: int) -> _Cut:
    """As few tiles as possible and those as small as possible: the last one then sticks out least."""
    # Rounded up, and written for positive numbers only: ONNX rounds quotients of negative ones the other way.
    tiles = (length + TILE - 1) // TILE
    side = (length + tiles - 1) // tiles
    return _Cut(tiles, side, min(side + neighborhood_size - 1, length))


class _Axis(NamedTuple):
    """Indices along an axis of the map.

    Attributes:
        queries: (tiles, side), pixels; past the end of the axis the last one again.
        keys: (tiles, region), pixels.
        cells: (tiles, side, region), indices into an axis of the table that is one longer for masked keys.
    """

    queries: Tensor
    keys: Tensor
    cells: Tensor

    @classmethod
    def of(cls, length: int, neighborhood_size: int, device: torch.device) -> "_Axis":
        cut = _cut(length, neighborhood_size)
        reach = neighborhood_size // 2
        firsts = torch.arange(cut.tiles, device=device)[:, None] * cut.side
        queries = (firsts + torch.arange(cut.side, device=device)).clamp(max=length - 1)
        # Regions and neighborhoods are moved inwards alike, so that a region holds those of all its queries.
        keys = (firsts - reach).clamp(0, length - cut.region) + torch.arange(cut.region, device=device)
        nearest_first = (queries - reach).clamp(0, length - min(neighborhood_size, length))
        place = keys[:, None, :] - nearest_first[:, :, None]
        displacement = keys[:, None, :] - queries[:, :, None]
        outside = (place < 0) | (place >= neighborhood_size)
        cells = (displacement + neighborhood_size - 1).masked_fill(outside, 2 * neighborhood_size - 1)
        return cls(queries, keys, cells)


def _nearby(length: int, neighborhood_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels of each query's neighborhood along an axis, and their cells of the table's, both (queries, keys)."""
    size, pixels = min(neighborhood_size, length), torch.arange(length, device=device)[:, None]
    keys = (pixels - neighborhood_size // 2).clamp(0, length - size) + torch.arange(size, device=device)
    return keys, keys - pixels + neighborhood_size - 1


def _pixels(maps: Tensor, index: Tensor) -> Tensor:
    """Pixels of maps (B, heads, H, W, d) at an index (ty, tx, y, x) into H * W: (B, heads, ty, tx, y * x, d)."""
    found = maps.flatten(2, 3).index_select(2, index.flatten())
    return rearrange(found, "b heads (ty tx pixel) d -> b heads ty tx pixel d", ty=index.shape[0], tx=index.shape[1])
