"""Cluttered scenes: one whole digit somewhere among fragments of others.

After the cluttered MNIST of Spatial Transformer Networks (Jaderberg et al., 2015), with a random scale, fewer
fragments, and fragments of about a third of a digit's side, as there. Where to look is then part of the task,
which is what deformable attention claims to learn. A scene is first planned in units of the canvas, so that the
same scene exists at every resolution, and then rendered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

GRID = 8  # source pixels per side of a digit
REFERENCE_CANVAS = 64  # pixels; digit scales are stated for it


@dataclass(frozen=True)
class ScenePlan:
    """What is where in N scenes of L layers: layer 0 is the whole digit, the others are fragments.

    Attributes:
        source: (N, L) index of the digit that a layer is cut from.
        pixel: (N, L) side of one source pixel, in canvases.
        corner: (N, L, yx) where the top left of the source's grid would lie, in canvases.
        start: (N, L, yx) first visible source pixel.
        extent: (L,) visible source pixels per side.
    """

    source: Tensor
    pixel: Tensor
    corner: Tensor
    start: Tensor
    extent: Tensor

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, rows: Tensor) -> "ScenePlan":
        return ScenePlan(self.source[rows], self.pixel[rows], self.corner[rows], self.start[rows], self.extent)

    def to(self, device: torch.device) -> "ScenePlan":
        return ScenePlan(*(getattr(self, field.name).to(device) for field in fields(self)))


def plan_scenes(
    count: int,
    *,
    sources: int,
    digit_scale: Sequence[float],
    fragments: int,
    fragment_size: int,
    generator: torch.Generator,
) -> ScenePlan:
    """Draws `count` scenes; every layer lies on the canvas, and no fragment is of the whole digit.

    Args:
        sources: number of digits to draw from.
        digit_scale: (least, most) pixels per source pixel on a canvas of 64 pixels.
        fragment_size: source pixels per side of a fragment, of a digit's 8.
    """
    layers = 1 + fragments
    extent = torch.tensor([GRID] + [fragment_size] * fragments)

    # Which: stepping 1..sources-1 on from the whole digit reaches any other, and never the digit itself.
    digit = torch.randint(sources, (count, 1), generator=generator)
    steps = torch.randint(1, sources, (count, fragments), generator=generator)
    source = torch.cat([digit, (digit + steps) % sources], dim=1)

    # What part of it, how large and where.
    start = torch.randint(GRID - fragment_size + 1, (count, layers, 2), generator=generator)
    start[:, 0] = 0
    least, most = digit_scale
    pixel = least + (most - least) * torch.rand(count, layers, generator=generator)
    pixel = pixel / REFERENCE_CANVAS
    room = 1 - extent * pixel
    top_left = torch.rand(count, layers, 2, generator=generator) * room[..., None]
    return ScenePlan(source, pixel, top_left - start * pixel[..., None], start, extent)


def render_layers(plan: ScenePlan, digits: Tensor, size: int) -> Tensor:
    """Ink (N, L, size, size) in 0..1 of every layer, from `digits` (M, 8, 8); their maximum is the scene.

    Without rotation, resampling is separable: rows @ digit @ columns^T, a small matrix product per layer. It
    takes a sixth of the time of `grid_sample` (64 scenes of 64 pixels, one thread: 4 ms against 23).
    """
    device = digits.device
    centres = (torch.arange(size, device=device) + 0.5) / size
    positions = (centres - plan.corner[..., None]) / plan.pixel[..., None, None] - 0.5  # in source pixels
    taps = torch.arange(GRID, device=device)
    weights = cubic_kernel(positions[..., None] - taps)  # (N, L, yx, size, 8)

    last = plan.start + plan.extent[:, None]
    visible = (taps >= plan.start[..., None]) & (taps < last[..., None])
    rows, columns = (weights * visible[..., None, :]).unbind(2)
    ink = rows @ digits[plan.source] @ columns.mT.contiguous()  # a copy, for a faster product
    return ink.clamp_(0, 1)  # the kernel overshoots


def cubic_kernel(x: Tensor) -> Tensor:
    """Cubic convolution with a = -1/2 (Keys, 1981): smooth strokes where bilinear would show the 8x8 grid."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))
