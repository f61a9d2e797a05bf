"""ImageNet-1K (Russakovsky et al., 2015)."""

from pathlib import Path
from typing import Any

import numpy as np

from src.data.augment import DeiTImages
from src.data.base import DataError, Split
from src.data.files import ImageFiles, class_folders, image_names, scan_tree
from src.data.splits import stratified_split

ADVICE = "unpack ILSVRC2012 of https://image-net.org into root/train/SYNSET/*.JPEG and root/val/SYNSET/*.JPEG"


class ImageNet(DeiTImages):
    """1,281,167 training photographs and 50,000 others in 1000 classes.

    The official validation images are the test split here; models are chosen on a fixed, stratified part of
    the training images, on which they are not trained. Most papers, DAT's among them, train on all training
    images and both choose and report on the 50,000: results from here are not quite comparable with theirs.

    Args:
        root: directory with train/ and val/.
        val_images: size of the validation split.
    """

    def __init__(self, *, root: str, val_images: int, **options: Any):
        super().__init__(**options)
        self.root, self.val_images = Path(root).expanduser(), val_images

    @property
    def class_names(self) -> tuple[str, ...]:
        """WordNet synsets, as the folders are called."""
        return class_folders(self.root / "train")

    def check(self) -> None:
        for part in ("train", "val"):
            directory = self.root / part
            if not directory.is_dir():
                raise DataError(f"{self.name}: no directory {directory}; {ADVICE}")
            classes = class_folders(directory)
            if len(classes) != self.num_classes:
                raise DataError(
                    f"{self.name}: {directory} has {len(classes)} class folders, not {self.num_classes}; {ADVICE}"
                )
            if classes != self.class_names:
                raise DataError(f"{self.name}: the classes of {directory} are not those of train/; {ADVICE}")
            for name in classes:
                if next(image_names(directory / name), None) is None:
                    raise DataError(f"{self.name}: no images in {directory / name}; {ADVICE}")

    def find_splits(self) -> dict[Split, tuple[ImageFiles, np.ndarray]]:
        train = scan_tree(self.root / "train", self.class_names)
        test = scan_tree(self.root / "val", self.class_names)
        total = len(train.names)
        in_train, in_val = stratified_split(train.labels, [total - self.val_images, self.val_images])
        return {"train": (train, in_train), "val": (train, in_val), "test": (test, np.arange(len(test.names)))}
