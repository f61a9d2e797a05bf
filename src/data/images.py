"""Data sets of images that exist: where they come from, and what is done to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from src.randomness import randomness_from

Transform = Callable[[Image.Image], Tensor]


class ImageSource(Protocol):
    """Colour images with labels, by index."""

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]: ...


@dataclass(frozen=True)
class ArrayImages:
    """Images held in memory: (N, H, W) grey or (N, H, W, 3) colour, uint8."""

    images: np.ndarray
    labels: np.ndarray

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[index]).convert("RGB"), int(self.labels[index])


class PlainImages(Dataset):
    """The images of `source` at `indices`, the same whenever they are asked for.

    Args:
        transform: image to (3, S, S) normalised.
    """

    def __init__(self, source: ImageSource, indices: Sequence[int] | np.ndarray, transform: Transform):
        self.source, self.indices, self.transform = source, indices, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        image, label = self.source[int(self.indices[number])]
        return self.transform(image), label


class AugmentedImages(PlainImages):
    """As PlainImages, with random transforms that depend on `seed` and the number alone (ImageData)."""

    def __init__(self, source: ImageSource, indices: Sequence[int] | np.ndarray, transform: Transform, *, seed: int):
        super().__init__(source, indices, transform)
        self.seed = seed

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        with randomness_from("augment", self.seed, number):
            return super().__getitem__(number % len(self))
