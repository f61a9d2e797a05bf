"""What is read at the points: the key and value features of deformable attention (DAT, eq. 4).

Points are (y, x) in [-1, 1]; -1 and 1 are the centres of the first and the last pixel of a map
(`align_corners=True`). Outside of the map there are zeros.
"""

from typing import Protocol

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from src.models import bilinear
from src.models.looking import patch_centres


class Sampling(Protocol):
    """What deformable attention needs of a sampling."""

    def __call__(self, x: Tensor, points: Tensor) -> Tensor: ...

    def places(self, points: Tensor, map_size: tuple[int, int]) -> tuple[Tensor, int]: ...


class BilinearSampling(nn.Module):
    """Features read at the points, each a blend of its four neighbours. It has no parameters.

    Args:
        stride: not used here; the points themselves say how many there are.
        kernel: name of an implementation in `bilinear.py`.
    """

    def __init__(self, *, stride: int, kernel: str):
        super().__init__()
        self.read = bilinear.kernel(kernel)

    def forward(self, x: Tensor, points: Tensor) -> Tensor:
        """(B, C, H, W) and (B, G, Hk, Wk, yx) to (B, C, Hk, Wk); group g of the channels is read at its points."""
        groups = points.shape[1]
        grid = rearrange(points.flip(-1), "b g hk wk xy -> (b g) hk wk xy")  # grid_sample wants (x, y)
        grouped = rearrange(x, "b (g c) h w -> (b g) c h w", g=groups)
        # In the points' float32, also under autocast: in bfloat16 a point moves by up to a quarter of a pixel.
        sampled = self.read(grouped.to(grid.dtype), grid)
        return rearrange(sampled, "(b g) c hk wk -> b (g c) hk wk", g=groups).to(x.dtype)

    def places(self, points: Tensor, map_size: tuple[int, int]) -> tuple[Tensor, int]:
        """Where on the map keys are read, (B, G, Hk, Wk, yx), and the side of the patch that each is made of."""
        return points, 1


class AveragePooling(nn.Module):
    """Features averaged over cells of `stride` pixels; the points are not looked at.

    What the published DAT++ code puts in the place of bilinear sampling when its offsets are switched off.
    """

    def __init__(self, *, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor, points: Tensor) -> Tensor:
        """(B, C, H, W) and points, unused, to (B, C, Hk, Wk)."""
        # A cell that is cut by the border is the mean of the pixels that it has.
        return F.avg_pool2d(x, self.stride, ceil_mode=True)

    def places(self, points: Tensor, map_size: tuple[int, int]) -> tuple[Tensor, int]:
        """Where on the map keys are read, (B, G, Hk, Wk, yx), and the side of the patch that each is made of."""
        centres = patch_centres((points.shape[2], points.shape[3]), self.stride, map_size, points.device)
        return centres.to(points).expand_as(points), self.stride
