"""The null: every pixel is given the mean of its neighbours, whatever they are (PoolFormer's token mixer)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from src.models.geometry import GeometryError, nearest
from src.models.looking import Look, to_positions
from src.models.pointwise import Pointwise
from src.models.recomputed import NO_NORM, normed_then
from src.models.stage import Stage


class AveragePoolingMixer(nn.Module):
    """Values of the `neighborhood_size` x `neighborhood_size` pixels round each one, all of the same weight.

    What is left of attention when queries, keys and positions are taken away: projections of values and output.
    At the border the mean is of the pixels that there are.

    Args:
        neighborhood_size: side of the neighborhood in pixels, odd.
    """

    def __init__(self, dim: int, *, neighborhood_size: int):
        super().__init__()
        self.neighborhood_size = neighborhood_size
        self.to_v = Pointwise(dim, dim)
        self.mean = nn.AvgPool2d(neighborhood_size, 1, neighborhood_size // 2, count_include_pad=False)
        self.proj = Pointwise(dim, dim)

    def forward(self, x: Tensor, norm: nn.Module = NO_NORM) -> Tensor:
        return self.proj(self.mean(normed_then(norm, self.to_v, x)))

    def look(self, x: Tensor, *, weights: bool = True) -> Look:
        """The pixels round each query, of equal weight; of those off the map none."""
        (height, width), side = x.shape[2:], self.neighborhood_size
        pixels = torch.cartesian_prod(torch.arange(height), torch.arange(width))
        around = torch.cartesian_prod(*(torch.arange(side) - side // 2,) * 2)
        keys = (pixels[:, None] + around).to(x.device)
        inside = ((keys >= 0) & (keys < keys.new_tensor([height, width]))).all(-1).float()
        return Look(
            kind="average_pooling",
            map_size=(height, width),
            points=to_positions(keys.float(), (height, width)).expand(x.shape[0], 1, -1, -1, -1),
            weights=(inside / inside.sum(-1, keepdim=True)).expand(x.shape[0], 1, -1, -1) if weights else None,
        )


@dataclass(frozen=True)
class AveragePooling:
    """Builds the average pooling of a stage."""

    def check(self, stage: Stage) -> None:
        """A neighborhood has a pixel in its middle."""
        side = stage.neighborhood_size
        if side % 2 == 0:
            raise GeometryError(
                f"stage {stage.name}: neighborhood_size {side} must be odd, so that a pixel is in its middle; "
                f"nearest sizes that are: {nearest(range(1, side + 2, 2), side)}"
            )

    def build(self, stage: Stage) -> nn.Module:
        return AveragePoolingMixer(stage.dim, neighborhood_size=stage.neighborhood_size)
