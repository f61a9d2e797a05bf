"""Images in files, and the trees with one folder per class that most data comes in."""

import hashlib
import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from src.data.base import DataError, ImageData, Split
from src.data.images import AugmentedImages, PlainImages, Transform


@dataclass(frozen=True)
class ImageFiles:
    """Image files below `root`.

    Attributes:
        names: (N,) paths relative to `root`; an array, since forked workers that touch a million Python
            strings end up copying them all.
        labels: (N,)
    """

    root: Path
    names: np.ndarray
    labels: np.ndarray

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path = self.root / str(self.names[index])
        try:
            with Image.open(path) as image:
                return image.convert("RGB"), int(self.labels[index])
        except OSError as error:
            raise DataError(f"cannot read {path} ({error}); replace or delete the file") from error

    def size(self, index: int) -> int:
        """Bytes."""
        return os.path.getsize(os.path.join(self.root, self.names[index]))


def class_folders(root: Path) -> tuple[str, ...]:
    """Names of the folders in `root`, sorted; hidden ones are nobody's class."""
    return tuple(sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != "."))


def image_names(folder: Path) -> Iterator[str]:
    """Images at any depth below `folder`, relative to it, in no order."""
    for directory, _, files in os.walk(folder, followlinks=True):
        below = Path(directory).relative_to(folder)
        for file in files:
            if file.lower().endswith(IMG_EXTENSIONS) and file[0] != ".":
                yield (below / file).as_posix()


def scan_tree(root: Path, classes: Sequence[str]) -> ImageFiles:
    """The images of root/class/..., labelled by the position of the class in `classes`.

    Raises:
        DataError: when `root` has a folder that is none of the classes.
    """
    strangers = sorted(set(class_folders(root)) - set(classes))
    if strangers:
        raise DataError(f"{root} has a folder '{strangers[0]}' that the training classes lack; rename or remove it")
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if (root / name).is_dir():
            found = sorted(f"{name}/{image}" for image in image_names(root / name))
            names += found
            labels += [label] * len(found)
    return ImageFiles(root, np.array(names, dtype=str), np.array(labels, dtype=np.int64))


class FileImages(ImageData):
    """A data set whose splits are lists of image files."""

    @abstractmethod
    def find_splits(self) -> dict[Split, tuple[ImageFiles, np.ndarray]]:
        """For every split the files to choose from and the (n,) indices chosen."""

    @abstractmethod
    def train_transform(self) -> Transform: ...

    @abstractmethod
    def eval_transform(self) -> Transform: ...

    @cached_property
    def splits(self) -> dict[Split, tuple[ImageFiles, np.ndarray]]:
        return self.find_splits()

    def make_dataset(self, split: Split) -> PlainImages:
        files, indices = self.splits[split]
        if split == "train":
            return AugmentedImages(files, indices, self.train_transform(), seed=self.seed)
        return PlainImages(files, indices, self.eval_transform())

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        # Names, labels and sizes; reading every file would take as long as an epoch.
        digest = hashlib.sha256()
        for split, (files, indices) in self.splits.items():
            digest.update(split.encode())
            for index in indices.tolist():
                entry = f"\n{files.names[index]} {files.labels[index]} {files.size(index)}"
                digest.update(entry.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]
