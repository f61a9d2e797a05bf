"""Fashion-MNIST (Xiao et al., 2017): a drop-in for MNIST that is not solved by everything."""

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torchvision

from src.data.base import DataError
from src.data.images import ArrayImages
from src.data.small_images import SmallImages

PARTS = ("train", "t10k")
UINT8 = 8  # the element type in an IDX header


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array in an IDX file, gzipped or not.

    The format: two zero bytes, the element type, the number of dimensions, each dimension as a big-endian
    uint32, then the elements.

    Raises:
        DataError: when the file ends too soon or is no such file.
    """
    content = path.read_bytes()
    try:
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (EOFError, OSError, zlib.error):
        raise DataError(f"{path.name} is damaged or cut short") from None
    if len(content) < 4 or content[:3] != bytes([0, 0, UINT8]):
        raise DataError(f"{path.name} is damaged or not an IDX file of bytes")
    header = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4))
    if len(content) != header + np.prod(shape, dtype=np.int64):
        raise DataError(f"{path.name} is damaged or cut short")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


class FashionMNIST(SmallImages):
    """70,000 grey pictures of clothes, 28x28, in 10 classes: 60,000 to train on, 10,000 to test.

    Reads the four IDX files, gzipped or not, in `root` or where torchvision puts them below it.
    """

    mean = (0.2860,) * 3  # of the 60,000 training images
    std = (0.3530,) * 3
    side = 28
    advice = (
        "allow data.download=true network access, or on Debian `apt-get install dataset-fashion-mnist` and "
        "data.root=/usr/share/datasets/fashion-mnist; delete damaged files first"
    )

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._read: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(torchvision.datasets.FashionMNIST.classes)

    def problem(self) -> str | None:
        try:
            for part in PARTS:
                images, labels = self._arrays(part)
                if len(images) != len(labels):
                    return f"{part} has {len(images)} images but {len(labels)} labels"
        except DataError as error:
            return str(error)
        return None

    def fetch(self) -> None:
        torchvision.datasets.FashionMNIST(self.root, download=True)

    def load(self, *, train: bool) -> ArrayImages:
        return ArrayImages(*self._arrays("train" if train else "t10k"))

    def fingerprint(self) -> str:
        """Of the unpacked content, so that it does not matter who packed it."""
        digest = hashlib.sha256(repr(self.val_images).encode())
        for part in PARTS:
            for array in self._arrays(part):
                digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    def _arrays(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, 28, 28) and labels (N,)."""
        if part not in self._read:
            self._read[part] = (
                read_idx(self._find(f"{part}-images-idx3-ubyte")),
                read_idx(self._find(f"{part}-labels-idx1-ubyte")),
            )
        return self._read[part]

    def _find(self, name: str) -> Path:
        for directory in (self.root, self.root / "FashionMNIST" / "raw"):
            for path in (directory / name, directory / f"{name}.gz"):
                if path.is_file():
                    return path
        raise DataError(f"{name}[.gz] is missing")
