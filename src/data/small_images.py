"""What the small public benchmarks share: a download, a validation split from training, crop and flip."""

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from filelock import FileLock
from torchvision.transforms import (
    Compose,
    InterpolationMode,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
    ToTensor,
)

from src.data.base import DataError, ImageData, Split
from src.data.images import ArrayImages, AugmentedImages, PlainImages
from src.data.on_device import ArraysOnDevice
from src.data.splits import stratified_split


class SmallImages(ImageData):
    """A benchmark whose images fit in memory, resized to the model's size (bicubic).

    Validation is a fixed stratified part of the training images. `check` verifies that all files are whole,
    those of the test split included; the test images themselves are used by the test loader alone.

    Args:
        root: directory of the files.
        download: fetch what is missing.
        val_images: size of the validation split.
        crop_padding: pixels around the original image, before a random crop of its own size.
    """

    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    side: ClassVar[int]  # pixels of the original images
    advice: ClassVar[str]  # how to get the data by hand

    def __init__(self, *, root: str, download: bool, val_images: int, crop_padding: int, **common: Any):
        super().__init__(**common)
        self.root, self.download = Path(root).expanduser(), download
        self.val_images, self.crop_padding = val_images, crop_padding

    @abstractmethod
    def problem(self) -> str | None:
        """What is missing or damaged in `root`; None when everything is there."""

    @abstractmethod
    def fetch(self) -> None:
        """Downloads into `root`; may raise anything."""

    @abstractmethod
    def load(self, *, train: bool) -> ArrayImages:
        """The benchmark's training or test images."""

    def check(self) -> None:
        problem, failure = self.problem(), ""
        if problem and self.download:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                with FileLock(self.root / ".download.lock"):  # the processes of one machine take turns
                    if self.problem():
                        self.fetch()
            except Exception as error:  # whatever network, archive or disk come up with
                failure = f"download failed ({' '.join(f'{type(error).__name__}: {error}'.split())}); "
            problem = self.problem()
        if problem:
            raise DataError(f"{self.name}: {problem}, looked in {self.root}; {failure}{self.advice}")
        self._check_num_classes()

    def make_on_device(self, split: Split, device: torch.device) -> ArraysOnDevice:
        source, indices = self._images_of(split)
        return ArraysOnDevice(
            source,
            indices,
            image_size=self.image_size,
            mean=self.mean,
            std=self.std,
            device=device,
            crop_padding=self.crop_padding if split == "train" else None,
            seed=self.seed,
        )

    def make_dataset(self, split: Split) -> PlainImages:
        to_input = [
            Resize((self.image_size, self.image_size), InterpolationMode.BICUBIC),
            ToTensor(),
            Normalize(self.mean, self.std),
        ]
        source, indices = self._images_of(split)
        if split != "train":
            return PlainImages(source, indices, Compose(to_input))
        moved = [RandomCrop(self.side, padding=self.crop_padding), RandomHorizontalFlip()]
        return AugmentedImages(source, indices, Compose([*moved, *to_input]), seed=self.seed)

    def _images_of(self, split: Split) -> tuple[ArrayImages, np.ndarray]:
        """Where the images of a split are, and which they are."""
        if split == "test":
            test = self.load(train=False)
            return test, np.arange(len(test.labels))
        source = self.training_images
        in_train, in_val = stratified_split(source.labels, [len(source.labels) - self.val_images, self.val_images])
        return source, in_train if split == "train" else in_val

    @cached_property
    def training_images(self) -> ArrayImages:
        return self.load(train=True)
