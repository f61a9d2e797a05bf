"""The parts of the published blocks, transcribed: norms, feed-forward networks, attention. See README.md.

Every part maps (B, C, H, W) to (B, C, H, W), in contiguous maps.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

V1_KERNELS = (9, 7, 5, 3)  # of the offset network, by stage


class MapNorm(nn.Module):
    """LayerNorm over channels, by a copy with channels last and a copy back."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(rearrange(x, "b c h w -> b h w c"))
        return rearrange(x, "b h w c -> b c h w").contiguous()


class TokenMLP(nn.Module):
    """Two linear layers with GELU between them, on tokens."""

    def __init__(self, dim: int, expansion: int):
        super().__init__()
        self.chunk = nn.Sequential()
        self.chunk.add_module("linear1", nn.Linear(dim, dim * expansion))
        self.chunk.add_module("act", nn.GELU())
        self.chunk.add_module("linear2", nn.Linear(dim * expansion, dim))

    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[2]
        x = self.chunk(rearrange(x, "b c h w -> b (h w) c"))
        return rearrange(x, "b (h w) c -> b c h w", h=height).contiguous()


class ConvMLP(nn.Module):
    """DAT++'s: 1x1 convolutions, and a depthwise convolution beside a skip between them."""

    def __init__(self, channels: int, expansion: int):
        super().__init__()
        hidden = channels * expansion
        self.linear1 = nn.Sequential(nn.Conv2d(channels, hidden, 1))
        self.act = nn.GELU()
        self.linear2 = nn.Sequential(nn.Conv2d(hidden, channels, 1))
        self.dwc = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear1(x)
        return self.linear2(self.act(x + self.dwc(x)))


class LocalAttention(nn.Module):
    """Attention inside of windows, which must tile the map."""

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, window_size: int):
        super().__init__()
        self.heads, self.side = heads, window_size
        self.proj_qkv, self.proj_out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, heads))
        at = torch.stack(torch.meshgrid(torch.arange(window_size), torch.arange(window_size), indexing="ij"), -1)
        at = at.reshape(-1, 2)
        apart = at[:, None] - at[None] + window_size - 1  # (q, k, yx)
        self.register_buffer("relative_position_index", apart[..., 0] * (2 * window_size - 1) + apart[..., 1])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        rows, side = x.shape[2] // self.side, self.side
        windows = rearrange(x, "b c (r y) (s x) -> (b r s) (y x) c", y=side, x=side)
        q, k, v = rearrange(self.proj_qkv(windows), "n t (z m d) -> z n m t d", z=3, m=self.heads)
        scores = torch.einsum("nmqd,nmkd->nmqk", q * q.shape[-1] ** -0.5, k)
        bias = self.relative_position_bias_table[self.relative_position_index]
        scores = scores + rearrange(bias, "q k m -> 1 m q k")
        if mask is not None:
            scores = rearrange(scores, "(b w) m q k -> b w m q k", w=len(mask)) + mask[:, None]
            scores = rearrange(scores, "b w m q k -> (b w) m q k")
        out = torch.einsum("nmqk,nmkd->nmqd", scores.softmax(dim=3), v)
        out = self.proj_out(rearrange(out, "n m t d -> n t (m d)"))
        columns = x.shape[3] // side
        return rearrange(out, "(b r s) (y x) c -> b c (r y) (s x)", r=rows, s=columns, y=side).contiguous()


class ShiftedAttention(LocalAttention):
    """The same on a map rolled by `shift_size`; pixels that the roll has brought together are masked by -100."""

    attn_mask: Tensor

    def __init__(self, dim: int, heads: int, window_size: int, shift_size: int, fmap_size: int | tuple[int, int]):
        super().__init__(dim, heads, window_size)
        self.shift = shift_size
        height, width = (fmap_size, fmap_size) if isinstance(fmap_size, int) else fmap_size
        parts = torch.zeros(height, width)
        cuts = (slice(0, -window_size), slice(-window_size, -shift_size), slice(-shift_size, None))
        for i, down in enumerate(cuts):
            for j, right in enumerate(cuts):
                parts[down, right] = 3 * i + j
        parts = rearrange(parts, "(r y) (s x) -> (r s) (y x)", y=window_size, x=window_size)
        strangers = parts[:, :, None] != parts[:, None, :]
        self.register_buffer("attn_mask", torch.zeros(strangers.shape).masked_fill(strangers, -100.0))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.roll(x, (-self.shift, -self.shift), (2, 3))
        return torch.roll(super().forward(x, self.attn_mask), (self.shift, self.shift), (2, 3))


class NeighborhoodAttention(nn.Module):
    """Each pixel attends to the square round it, moved inwards at the border; a copy of the keys for every query."""

    def __init__(self, dim: int, kernel_size: int, num_heads: int):
        super().__init__()
        self.heads, self.side = num_heads, kernel_size
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.rpb = nn.Parameter(torch.zeros(num_heads, 2 * kernel_size - 1, 2 * kernel_size - 1))

    def forward(self, x: Tensor) -> Tensor:
        (height, width), side = x.shape[2:], self.side
        if min(height, width) < side:
            raise ValueError(f"a {height}x{width} map is smaller than the neighborhood of {side}x{side}")
        qkv = self.qkv(rearrange(x, "b c h w -> b h w c"))
        q, k, v = rearrange(qkv, "b h w (z m d) -> z b m h w d", z=3, m=self.heads)
        y, x_ = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
        top, left = (y - side // 2).clamp(0, height - side), (x_ - side // 2).clamp(0, width - side)

        def around(t: Tensor) -> Tensor:  # (b, m, h, w, d, ky, kx)
            return t.unfold(2, side, 1).unfold(3, side, 1).index_select(2, top).index_select(3, left)

        steps = torch.arange(side, device=x.device)
        down = top[:, None] + steps - y[:, None] + side - 1  # (h, ky), rows of the table
        right = left[:, None] + steps - x_[:, None] + side - 1
        bias = self.rpb[:, down[:, None, :, None], right[None, :, None, :]]  # (m, h, w, ky, kx)
        scores = torch.einsum("bmhwd,bmhwdyx->bmhwyx", q * q.shape[-1] ** -0.5, around(k)) + bias
        weights = scores.flatten(4).softmax(dim=-1).view_as(scores)
        out = torch.einsum("bmhwyx,bmhwdyx->bmhwd", weights, around(v))
        out = self.proj(rearrange(out, "b m h w d -> b h w (m d)"))
        return rearrange(out, "b h w c -> b c h w").contiguous()


class DeformableAttention(nn.Module):
    """Keys and values read at points; the displacement of every query from every point is a tensor of its own.

    Args:
        config: the arguments of the published constructor.
        release: "v1" or "v2": other grids, and another meaning of the range.

    Raises:
        ValueError: a flag that no published model sets.
    """

    def __init__(self, config: Mapping[str, Any], release: str):
        super().__init__()
        if not config["use_pe"] or config["dwc_pe"] or config["no_off"] or config["fixed_pe"] or config.get("log_cpb"):
            raise ValueError("only the published models' deformable attention is transcribed")
        self.heads, self.groups, self.release = config["n_heads"], config["n_groups"], release
        self.factor = config["offset_range_factor"]
        dim = config["n_heads"] * config["n_head_channels"]
        own = dim // self.groups
        size, stride = config["ksize"] if release == "v2" else V1_KERNELS[config["stage_idx"]], config["stride"]
        padding = 0 if release == "v2" and size == stride else size // 2
        self.conv_offset = nn.Sequential(
            nn.Conv2d(own, own, size, stride, padding, groups=own),
            MapNorm(own),
            nn.GELU(),
            nn.Conv2d(own, 2, 1, bias=False),
        )
        self.proj_q, self.proj_k, self.proj_v, self.proj_out = (nn.Conv2d(dim, dim, 1) for _ in range(4))
        height, width = config["q_size"]
        self.rpe_table = nn.Parameter(torch.zeros(self.heads, 2 * height - 1, 2 * width - 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, dim, height, width = x.shape
        q = self.proj_q(x)
        pos = self.positions(q)  # (b g, hk, wk, yx)
        keys = pos.shape[1] * pos.shape[2]

        sampled = F.grid_sample(
            x.reshape(batch * self.groups, -1, height, width), pos[..., (1, 0)], mode="bilinear", align_corners=True
        )
        sampled = sampled.reshape(batch, dim, 1, keys)
        q = q.reshape(batch * self.heads, -1, height * width)
        k = self.proj_k(sampled).reshape(batch * self.heads, -1, keys)
        v = self.proj_v(sampled).reshape(batch * self.heads, -1, keys)
        scores = torch.einsum("bcm,bcn->bmn", q, k) * q.shape[1] ** -0.5

        grid = self.queries(height, width, x).expand(batch * self.groups, -1, -1, -1).reshape(-1, height * width, 1, 2)
        displacement = (grid - pos.reshape(-1, 1, keys, 2)) * 0.5
        table = (
            self.rpe_table[None]
            .expand(batch, -1, -1, -1)
            .reshape(-1, self.heads // self.groups, *self.rpe_table.shape[1:])
        )
        bias = F.grid_sample(table, displacement[..., (1, 0)], mode="bilinear", align_corners=True)
        scores = scores + bias.reshape(batch * self.heads, height * width, keys)

        out = torch.einsum("bmn,bcn->bcm", scores.softmax(dim=2), v)
        return self.proj_out(out.reshape(batch, dim, height, width))

    def positions(self, q: Tensor) -> Tensor:
        """Queries (B, C, H, W) to points (B * groups, Hk, Wk, yx)."""
        offset = self.conv_offset(rearrange(q, "b (g c) h w -> (b g) c h w", g=self.groups))
        size = offset.shape[2:]
        reach = [n - 1 if self.release == "v2" else n for n in size]
        reference = _grid(*((_halves(n, q) / length * 2 - 1) for n, length in zip(size, reach, strict=True)))
        if self.factor >= 0 if self.release == "v2" else self.factor > 0:
            most = torch.tensor([self.factor / length for length in reach], dtype=q.dtype, device=q.device)
            offset = offset.tanh() * most.view(1, 2, 1, 1)
        pos = rearrange(offset, "b p h w -> b h w p") + reference
        if self.factor < 0:
            pos = pos.clamp(-1, 1) if self.release == "v2" else pos.tanh()
        return pos

    def queries(self, height: int, width: int, like: Tensor) -> Tensor:
        """Positions (1, H, W, yx)."""
        last = [n - 1 if self.release == "v2" else n for n in (height, width)]
        first = 0.5 if self.release == "v2" else 0.0
        sizes = zip((height, width), last, strict=True)
        return _grid(*((_halves(n, like) - first) / length * 2 - 1 for n, length in sizes))[None]


def _halves(n: int, like: Tensor) -> Tensor:
    """0.5, 1.5, ..., n - 0.5; positions are float32 in the published networks, whatever the rest is."""
    return torch.arange(n, dtype=torch.float32, device=like.device) + 0.5


def _grid(y: Tensor, x: Tensor) -> Tensor:
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)
