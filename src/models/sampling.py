"""What is read at the points: the key and value features of deformable attention (DAT, eq. 4).

Points are (y, x) in [-1, 1]; -1 and 1 are the centres of the first and the last pixel of a map
(`align_corners=True`). Outside of the map there are zeros.
"""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from src.models.geometry import GeometryError, nearest, size
from src.models.stage import Stage


class BilinearSampling(nn.Module):
    """Features read at the points, each a blend of its four neighbours. It has no parameters.

    Args:
        stride: not used here; the points themselves say how many there are.
    """

    def __init__(self, *, stride: int):
        super().__init__()

    def forward(self, x: Tensor, points: Tensor) -> Tensor:
        """(B, C, H, W) and (B, G, Hk, Wk, yx) to (B, C, Hk, Wk); group g of the channels is read at its points."""
        groups = points.shape[1]
        grid = rearrange(points.flip(-1), "b g hk wk xy -> (b g) hk wk xy")  # grid_sample wants (x, y)
        grouped = rearrange(x, "b (g c) h w -> (b g) c h w", g=groups)
        # In the points' float32, also under autocast: in bfloat16 a point moves by up to a quarter of a pixel.
        sampled = F.grid_sample(grouped.to(grid.dtype), grid, mode="bilinear", align_corners=True)
        return rearrange(sampled, "(b g) c hk wk -> b (g c) hk wk", g=groups).to(x.dtype)


class AveragePooling(nn.Module):
    """Features averaged over cells of `stride` pixels; the points are not looked at.

    What the published DAT++ code puts in the place of bilinear sampling when its offsets are switched off.
    """

    def __init__(self, *, stride: int):
        super().__init__()
        self.stride = stride

    @staticmethod
    def check(stage: Stage) -> None:
        """Cells must tile the map."""
        height, width = stage.map_size
        if height % stage.stride or width % stage.stride:
            divisors = [s for s in range(1, height) if height % s == 0 and width % s == 0]
            raise GeometryError(
                f"stage {stage.name}: stride {stage.stride} doesn't divide the {size(stage.map_size)} map, which "
                f"average pooling needs; nearest strides that do: {nearest(divisors, stage.stride)}"
            )

    def forward(self, x: Tensor, points: Tensor) -> Tensor:
        """(B, C, H, W) and points, unused, to (B, C, Hk, Wk)."""
        return F.avg_pool2d(x, self.stride)
