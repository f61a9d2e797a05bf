"""Small sets that stay on the GPU: only numbers of images travel there, and pictures are made where they are needed.

What is drawn at random is drawn as for the CPU, from the same seeds; pixels differ from the CPU's by rounding alone.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from src.data.images import ArrayImages
from src.randomness import generator_from


class Numbers(NamedTuple):
    """A batch before its pictures are made: of which split, and which numbers (B,), on the CPU."""

    split: str
    numbers: Tensor


class DeviceSet(Protocol):
    """One split on a device."""

    def batch(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) and labels (B,), both there, of `numbers` (B,) of one epoch, which are on the CPU."""
        ...


class ArraysOnDevice:
    """Images in memory, as `src/data/small_images.py` transforms them: crop and flip, bicubic resize, normalise.

    Args:
        source: bytes.
        indices: of the split's images in `source`.
        image_size: side S in pixels.
        mean, std: of red, green and blue, in 0..1.
        device: where images are kept and made.
        crop_padding: pixels around an image before it is cropped at random; None for images as they are.
        seed: of the crops and flips.
    """

    def __init__(
        self,
        source: ArrayImages,
        indices: Sequence[int] | np.ndarray,
        *,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        crop_padding: int | None = None,
        seed: int = 0,
    ):
        pixels = torch.from_numpy(source.images[indices])
        channels_first = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
        self.pixels = channels_first.to(device)
        self.labels = torch.from_numpy(np.asarray(source.labels[indices])).long().to(device)
        self.mean, self.std = (torch.tensor(values, device=device)[:, None, None] for values in (mean, std))
        self.image_size, self.crop_padding, self.seed = image_size, crop_padding, seed

    def batch(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """As `DeviceSet` says."""
        device = self.pixels.device
        items = (numbers % len(self.pixels)).to(device)
        pixels = self.pixels[items].float()
        if self.crop_padding is not None:
            pixels = moved(pixels, self.draws(numbers).to(device), self.crop_padding)
        pixels = resized(pixels, self.image_size).expand(-1, 3, -1, -1)
        return (pixels / 255 - self.mean) / self.std, self.labels[items]

    def draws(self, numbers: Tensor) -> Tensor:
        """(B, 3) top and left of the crop, and whether it is mirrored: what torchvision draws for each number."""
        places = 2 * (self.crop_padding or 0) + 1
        drawn = []
        for number in numbers.tolist():
            generator = generator_from("augment", self.seed, number)
            # Without padding there is one place, and torchvision draws none.
            corner = [int(torch.randint(places, (1,), generator=generator)) if places > 1 else 0 for _ in range(2)]
            drawn.append([*corner, int(torch.rand(1, generator=generator) < 0.5)])
        return torch.tensor(drawn)


def resized(pixels: Tensor, side: int) -> Tensor:
    """Images (B, C, H, W) in 0..255 to (B, C, side, side), bicubic as by Pillow: along rows, then along columns.

    In between its pictures are bytes.
    """
    for size in ((pixels.shape[-2], side), (side, side)):
        if pixels.shape[-2:] != size:
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).round().clamp(0, 255)
    return pixels


def moved(pixels: Tensor, draws: Tensor, padding: int) -> Tensor:
    """Images (B, C, H, W) within `padding` black pixels, cropped to their own size and mirrored by `draws` (B, 3)."""
    height, width = pixels.shape[-2:]
    top, left, mirrored = draws.unbind(1)
    rows = top[:, None] + torch.arange(height, device=pixels.device)
    across = torch.arange(width, device=pixels.device)
    columns = left[:, None] + torch.where(mirrored[:, None] > 0, across.flip(0), across)
    padded = F.pad(pixels, (padding,) * 4).movedim(1, -1)
    image = torch.arange(len(pixels), device=pixels.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
