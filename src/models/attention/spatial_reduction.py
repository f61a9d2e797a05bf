"""Attention to a shrunken map (PVT's spatial reduction attention; row "P" of DAT, Table 6)."""

from dataclasses import dataclass

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from src.models.attention.attend import attend, attention_weights
from src.models.attention.heads import to_heads, to_map
from src.models.geometry import GeometryError, nearest, size
from src.models.looking import Look, patch_centres
from src.models.pad import pad_to_multiple
from src.models.pointwise import Pointwise
from src.models.recomputed import NO_NORM
from src.models.stage import Stage


class SpatialReductionAttention(nn.Module):
    """Keys and values are patches of `reduction` x `reduction` pixels, each projected to one token.

    Patches that the border of the map cuts are filled up with zeros.

    Args:
        dim: channels, split evenly over `num_heads`.
        reduction: side of a patch in pixels; with 1 pixels are the keys, and nothing is projected.
    """

    def __init__(self, dim: int, num_heads: int, *, reduction: int):
        super().__init__()
        self.num_heads, self.reduction = num_heads, reduction
        self.reduce: nn.Module = nn.Identity()
        if reduction > 1:
            self.reduce = nn.Sequential(nn.Conv2d(dim, dim, reduction, reduction), LayerNorm2d(dim, eps=1e-5))
        self.to_q = Pointwise(dim, dim)
        self.to_kv = Pointwise(dim, 2 * dim)
        self.proj = Pointwise(dim, dim)

    def forward(self, x: Tensor, norm: nn.Module = NO_NORM) -> Tensor:
        return self.proj(to_map(attend(*self.queries_keys_values(norm(x))), (x.shape[2], x.shape[3])))

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each (B, heads, pixels or patches, d)."""
        (q,) = to_heads(self.to_q(x), self.num_heads)
        reduced = self.reduce(pad_to_multiple(x, self.reduction))
        k, v = to_heads(self.to_kv(reduced), self.num_heads, parts=2)
        return q, k, v

    def look(self, x: Tensor, *, weights: bool = True) -> Look:
        """The patches, shared by all queries; what the border cuts off a patch counts as none of it."""
        map_size, side = (x.shape[2], x.shape[3]), self.reduction
        centres = patch_centres((-(-map_size[0] // side), -(-map_size[1] // side)), side, map_size, x.device)
        q, k, _ = self.queries_keys_values(x)
        return Look(
            kind="spatial_reduction",
            map_size=map_size,
            points=centres.flatten(0, 1).expand(x.shape[0], 1, 1, -1, -1),
            weights=attention_weights(q, k) if weights else None,
            side=side,
        )


@dataclass(frozen=True)
class SpatialReduction:
    """Builds the spatial reduction attention of a stage."""

    def check(self, stage: Stage) -> None:
        """There must be more than one key to choose from."""
        longest = max(stage.map_size)
        if stage.reduction >= longest:
            raise GeometryError(
                f"stage {stage.name}: reduction {stage.reduction} leaves one key of the {size(stage.map_size)} map; "
                f"nearest reductions that leave several: {nearest(range(1, longest), stage.reduction)}"
            )

    def build(self, stage: Stage) -> nn.Module:
        return SpatialReductionAttention(stage.dim, stage.num_heads, reduction=stage.reduction)
