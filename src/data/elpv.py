"""ELPV: solar cells photographed by their own light (Deitsch et al., 2021)."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.transforms import (
    Compose,
    InterpolationMode,
    Normalize,
    RandomHorizontalFlip,
    RandomVerticalFlip,
    Resize,
    ToTensor,
)

from src.data.base import DataError, Split
from src.data.files import FileImages, ImageFiles
from src.data.images import Transform
from src.data.splits import stratified_split

# Of all pixels of the training images, with 15% of the images each for validation and test.
MEAN, STD = (0.599,) * 3, (0.160,) * 3


class ELPV(FileImages):
    """2624 electroluminescence images of solar cells, 300x300, grey; the task is the probability of a defect.

    Four classes, very unequal: 1508, 295, 106 and 715 cells, so that 57% is what a constant answer gets. The
    splits are fixed and stratified by class; the package does not say which cells share a module.

    Args:
        val_fraction, test_fraction: of all images.
    """

    def __init__(self, *, val_fraction: float, test_fraction: float, **common: Any):
        super().__init__(**common)
        self.val_fraction, self.test_fraction = val_fraction, test_fraction

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the defect probabilities 0, 1/3, 2/3 and 1."""
        return "functional", "possibly defective", "likely defective", "defective"

    @property
    def root(self) -> Path:
        package = find_spec("elpv_dataset")
        if package is None or package.origin is None:
            raise DataError(
                f"{self.name}: the package elpv_dataset is missing, looked among the installed packages; "
                "`pip install elpv-dataset`"
            )
        return Path(package.origin).parent / "data"

    def check(self) -> None:
        if not (self.root / "labels.csv").is_file():
            raise DataError(f"{self.name}: no {self.root / 'labels.csv'}; reinstall with `pip install elpv-dataset`")
        self._check_num_classes()

    def find_splits(self) -> dict[Split, tuple[ImageFiles, np.ndarray]]:
        # A line is "images/cell0001.png  1.0  mono". The package's own loader decodes all images at once.
        lines = (self.root / "labels.csv").read_text().splitlines()
        names, probabilities, _ = zip(*(line.split() for line in lines if line.strip()), strict=True)
        labels = np.round(3 * np.array(probabilities, dtype=float)).astype(np.int64)
        files = ImageFiles(self.root, np.array(names), labels)

        total = len(labels)
        in_val, in_test = round(self.val_fraction * total), round(self.test_fraction * total)
        train, val, test = stratified_split(labels, [total - in_val - in_test, in_val, in_test])
        return {"train": (files, train), "val": (files, val), "test": (files, test)}

    def train_transform(self) -> Transform:
        # A cell has no up and no left, but its lines are horizontal and vertical: flips, no rotation.
        return Compose([RandomHorizontalFlip(), RandomVerticalFlip(), self.eval_transform()])

    def eval_transform(self) -> Transform:
        size = (self.image_size, self.image_size)
        return Compose([Resize(size, InterpolationMode.BICUBIC), ToTensor(), Normalize(MEAN, STD)])
