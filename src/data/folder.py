"""Anybody's images, in one folder per class."""

from pathlib import Path
from typing import Any

import numpy as np

from src.data.augment import DeiTImages
from src.data.base import DataError, Split
from src.data.files import ImageFiles, class_folders, scan_tree
from src.data.splits import stratified_split

LAYOUT = "data.root needs one folder per class, root/CLASS/*.png, or root/train/CLASS/*.png and the like"


class Folder(DeiTImages):
    """root/CLASS/*.png, divided here; or root/train/CLASS/*.png with val/ and test/ beside it, used as given.

    What is not given is a fixed stratified part of the training images. Where there is val/ but no test/,
    val/ becomes the test split, and models are chosen on a part of train/.

    Args:
        root: the tree.
        val_fraction, test_fraction: of the training images, for splits that are not given.
    """

    def __init__(self, *, root: str, val_fraction: float, test_fraction: float, **options: Any):
        super().__init__(**options)
        self.root = Path(root).expanduser()
        self.val_fraction, self.test_fraction = val_fraction, test_fraction

    @property
    def train_root(self) -> Path:
        return self.root / "train" if (self.root / "train").is_dir() else self.root

    @property
    def class_names(self) -> tuple[str, ...]:
        return class_folders(self.train_root)

    def check(self) -> None:
        if not self.root.is_dir():
            raise DataError(f"{self.name}: no directory {self.root}; {LAYOUT}")
        classes = self.class_names
        if not classes:
            raise DataError(f"{self.name}: no class folders in {self.train_root}; {LAYOUT}")
        shown = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
        self._check_num_classes(f" in {self.train_root} ({shown})")
        for split, (files, indices) in self.splits.items():
            if len(indices) == 0:
                raise DataError(f"{self.name}: no images for the {split} split in {files.root}; {LAYOUT}")
            for index in indices.tolist():
                if files.size(index) == 0:
                    raise DataError(
                        f"{self.name}: {files.root / str(files.names[index])} is empty; replace or delete it"
                    )
        files, indices = self.splits["train"]
        missing = sorted(set(range(len(classes))) - set(files.labels[indices].tolist()))
        if missing:
            raise DataError(
                f"{self.name}: no training images of class '{classes[missing[0]]}' in {files.root}; "
                "add some or remove the folder"
            )

    def find_splits(self) -> dict[Split, tuple[ImageFiles, np.ndarray]]:
        classes = self.class_names
        given: dict[Split, Path] = {}
        if self.train_root != self.root:
            beside = {name: self.root / name for name in ("val", "test") if (self.root / name).is_dir()}
            if "test" in beside:
                given = beside  # type: ignore[assignment]
            elif "val" in beside:
                given = {"test": beside["val"]}

        images = scan_tree(self.train_root, classes)
        total = len(images.names)
        carved = {"val": round(self.val_fraction * total), "test": round(self.test_fraction * total)}
        sizes = {split: size for split, size in carved.items() if split not in given}
        parts = stratified_split(images.labels, [total - sum(sizes.values()), *sizes.values()])
        splits = {split: (images, part) for split, part in zip(["train", *sizes], parts, strict=True)}
        for split, directory in given.items():
            files = scan_tree(directory, classes)
            splits[split] = files, np.arange(len(files.names))
        return splits  # type: ignore[return-value]
