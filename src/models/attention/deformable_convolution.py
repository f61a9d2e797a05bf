"""Deformable convolution (DCN v2) in the place of attention: points of its own for every pixel, fixed weights."""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from src.models.geometry import GeometryError, nearest
from src.models.looking import Look, to_positions
from src.models.pointwise import Pointwise
from src.models.recomputed import NO_NORM
from src.models.stage import Stage

POINTS = 9  # of a 3x3 kernel


class DeformableConvolution(nn.Module):
    """A 3x3 kernel whose nine points move with the image, each with a loudness (Zhu et al. 2019, eq. 1).

    Values are projected before and after, as in attention. All channels share the points; `groups` cuts the kernel so
    that the cost is about that of the deformable attention whose offset groups they are.

    Args:
        groups: groups of channels that the kernel mixes.
    """

    def __init__(self, dim: int, *, groups: int):
        super().__init__()
        self.to_v = Pointwise(dim, dim)
        self.to_points = _ToPoints(dim, 3 * POINTS, 3, padding=1)
        self.kernel = nn.Conv2d(dim, dim, 3, padding=1, groups=groups)
        self.proj = Pointwise(dim, dim)

    def forward(self, x: Tensor, norm: nn.Module = NO_NORM) -> Tensor:
        x = norm(x)
        offset, loudness = self.choose_points(x)
        # In float32 also under autocast, which doesn't know this operator: positions would be rounded.
        read = deform_conv2d(
            self.to_v(x).to(offset.dtype),
            offset,
            self.kernel.weight.to(offset.dtype),
            self.kernel.bias,
            padding=1,
            mask=loudness,
        )
        return self.proj(read.to(x.dtype))

    def choose_points(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets (B, 9 yx, H, W) of the kernel's points in pixels, and how loud each is (B, 9, H, W), from 0 to 2."""
        points = self.to_points(x).to(torch.promote_types(x.dtype, torch.float32))
        offset, loudness = points.split([2 * POINTS, POINTS], dim=1)
        return offset, 2 * loudness.sigmoid()

    def look(self, x: Tensor, *, weights: bool = True) -> Look:
        """The nine points of each pixel, the kernel that they started from, and their loudness: 1 at the outset."""
        map_size = (x.shape[2], x.shape[3])
        offset, loudness = self.choose_points(x)
        pixels = torch.cartesian_prod(*(torch.arange(n, device=x.device) for n in map_size))
        kernel = torch.cartesian_prod(*(torch.arange(-1, 2, device=x.device),) * 2)
        reference = (pixels[:, None] + kernel).to(offset.dtype)
        moved = reference + rearrange(offset, "b (k yx) h w -> b (h w) k yx", yx=2)
        return Look(
            kind="deformable_convolution",
            map_size=map_size,
            points=to_positions(moved, map_size)[:, None],
            reference=to_positions(reference, map_size),
            weights=rearrange(loudness, "b k h w -> b 1 (h w) k") if weights else None,
        )


class _ToPoints(nn.Conv2d):
    """Begins with zeros, as published: nothing moves, and the whole is a plain convolution."""

    def reset_parameters(self) -> None:
        for parameter in self.parameters(recurse=False):
            nn.init.zeros_(parameter)


@dataclass(frozen=True)
class DeformableConvolutions:
    """Builds the deformable convolution of a stage; its groups are the stage's offset groups."""

    def check(self, stage: Stage) -> None:
        """Groups hold the same number of channels."""
        fits = [g for g in range(1, stage.dim + 1) if stage.dim % g == 0]
        if stage.offset_groups not in fits:
            raise GeometryError(
                f"stage {stage.name}: offset_groups {stage.offset_groups} doesn't divide dim {stage.dim}; "
                f"nearest group counts that do: {nearest(fits, stage.offset_groups)}"
            )

    def build(self, stage: Stage) -> nn.Module:
        return DeformableConvolution(stage.dim, groups=stage.offset_groups)
