"""Deformable attention: the queries choose where keys and values are read (DAT, Sec. 3.2, Fig. 2)."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields

import torch
from einops import rearrange
from torch import Tensor, nn

from src.models.attention.attend import attend, attention_weights
from src.models.attention.heads import to_heads, to_map
from src.models.geometry import GeometryError, nearest, size
from src.models.looking import Look
from src.models.pointwise import Pointwise
from src.models.recomputed import NO_NORM, normed_then
from src.models.reference_grid import Grid
from src.models.sampling import Sampling
from src.models.stage import Stage


class DeformableAttention(nn.Module):
    """Attention whose keys and values are read at points that the queries choose.

    The queries of an offset group share their points, so that the cost is that of Hk * Wk keys.

    Args:
        dim: channels, split evenly over `num_heads`.
        offset: (B, C, H, W) of queries to raw offsets (B, G, Hk, Wk, yx).
        offset_range: raw offsets and reference points to points.
        reference_grid: the positions of queries and of reference points.
        sampling: features and points to the features of the keys (B, C, Hk, Wk).
        position_bias: points and query positions to what is added to the scores.
        local_encoding: queries to what is added to the output.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        offset: nn.Module,
        offset_range: nn.Module,
        reference_grid: Grid,
        sampling: Sampling,
        position_bias: nn.Module,
        local_encoding: nn.Module,
    ):
        super().__init__()
        self.num_heads = num_heads
        self.to_q = Pointwise(dim, dim)
        self.offset, self.offset_range, self.reference_grid = offset, offset_range, reference_grid
        self.sampling = sampling
        self.to_kv = Pointwise(dim, 2 * dim)
        self.position_bias, self.local_encoding = position_bias, local_encoding
        self.proj = Pointwise(dim, dim)

    def forward(self, x: Tensor, norm: nn.Module = NO_NORM) -> Tensor:
        # The norm is computed twice, so that only what is read at the points is kept of it, and not its whole map too.
        q, x = normed_then(norm, self.to_q, x), norm(x)

        # Where to look: a uniform grid, moved by offsets read from the queries.
        points = self.choose_points(q)

        # What is there, how much each key matters, and what it says.
        out = attend(*self.read(x, q, points))
        return self.proj(to_map(out, (x.shape[2], x.shape[3])) + self.local_encoding(q))

    def read(self, x: Tensor, q: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Queries, keys, values (B, heads, H * W or Hk * Wk, d), and what positions add to the scores."""
        (queries,) = to_heads(q, self.num_heads)
        k, v = to_heads(self.to_kv(self.sampling(x, points)), self.num_heads, parts=2)
        bias = self.position_bias(points, self.reference_grid.queries(x.shape[2:], x.device))
        return queries, k, v, bias

    def look(self, x: Tensor, *, weights: bool = True) -> Look:
        """Points of each offset group, the grid that they started from, and how much each query attends to each."""
        q, map_size = self.to_q(x), (x.shape[2], x.shape[3])
        points = self.choose_points(q)
        seen = None
        if weights:
            queries, k, _, bias = self.read(x, q, points)
            seen = attention_weights(queries, k, bias)
        reference = self.reference_grid.keys(map_size, points.shape[2:4], points.device)
        points, side = self.sampling.places(points, map_size)
        reference, _ = self.sampling.places(reference[None, None], map_size)
        return Look(
            kind="deformable",
            map_size=map_size,
            points=rearrange(points, "b g hk wk yx -> b g 1 (hk wk) yx"),
            reference=rearrange(reference, "1 1 hk wk yx -> 1 (hk wk) yx"),
            weights=seen,
            side=side,
        )

    def choose_points(self, q: Tensor) -> Tensor:
        """(B, C, H, W) to points (B, G, Hk, Wk, yx), in float32 also where the rest of the network is not."""
        device = q.device.type
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            offsets = self.offset(q.to(torch.promote_types(q.dtype, torch.float32)))
            reference = self.reference_grid.keys(q.shape[2:], offsets.shape[2:4], q.device)
            return self.offset_range(offsets, reference.to(offsets.dtype))


@dataclass(frozen=True, kw_only=True)
class Deformable:
    """Builds the deformable attention of a stage; each part is an axis of the study.

    Attributes:
        offset: builds from (dim, offset_groups, stride=, kernel_size=).
        offset_range, reference_grid: build from nothing.
        sampling: builds from (stride=).
        position_bias: builds from (num_heads, offset_groups, map_size, key_map_size).
        local_encoding: builds from (dim).
    """

    offset: Callable[..., nn.Module]
    offset_range: Callable[..., nn.Module]
    reference_grid: Callable[..., Grid]
    sampling: Callable[..., Sampling]
    position_bias: Callable[..., nn.Module]
    local_encoding: Callable[..., nn.Module]

    def check(self, stage: Stage) -> None:
        """Several keys, groups that hold whole heads, and whatever rule a part has of its own."""
        height, width = stage.map_size
        if min(stage.map_size) < 2:
            raise GeometryError(
                f"stage {stage.name}: a {size(stage.map_size)} map is too small for deformable attention, "
                f"which needs 2x2; use a larger image_size, a smaller patch_size, or attention [window] here"
            )
        if min(stage.key_map_size) < 2:
            raise GeometryError(
                f"stage {stage.name}: stride {stage.stride} leaves a {size(stage.key_map_size)} grid of keys on the "
                f"{size(stage.map_size)} map, and needs 2x2; nearest strides that work: "
                f"{nearest(range(1, min(height, width)), stage.stride)}"
            )
        divisors = [g for g in range(1, stage.num_heads + 1) if stage.num_heads % g == 0]
        if stage.offset_groups not in divisors:
            raise GeometryError(
                f"stage {stage.name}: offset_groups {stage.offset_groups} doesn't divide num_heads {stage.num_heads}; "
                f"nearest group counts that do: {nearest(divisors, stage.offset_groups)}"
            )
        for field in fields(self):
            part = getattr(self, field.name)
            rule = getattr(getattr(part, "func", part), "check", None)  # a partial's rule is its class's
            if rule is not None:
                rule(stage)

    def build(self, stage: Stage) -> DeformableAttention:
        return DeformableAttention(
            stage.dim,
            stage.num_heads,
            offset=self.offset(
                stage.dim, stage.offset_groups, stride=stage.stride, kernel_size=stage.offset_kernel_size
            ),
            offset_range=self.offset_range(),
            reference_grid=self.reference_grid(),
            sampling=self.sampling(stride=stage.stride),
            position_bias=self.position_bias(stage.num_heads, stage.offset_groups, stage.map_size, stage.key_map_size),
            local_encoding=self.local_encoding(stage.dim),
        )
