"""Small files in the formats of the real data sets."""

import gzip
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_fashion_mnist(root: Path) -> None:
    random = np.random.RandomState(0)
    for part, count in (("train", 40), ("t10k", 12)):
        images = random.randint(256, size=(count, 28, 28)).astype(np.uint8)
        write_idx(root / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(root / f"{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))


def write_cifar(root: Path, benchmark: type, key: str, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files in CIFAR's format, whose MD5s torchvision is made to expect."""
    random = np.random.RandomState(0)
    folder = root / benchmark.base_folder
    folder.mkdir()

    def write(name: str, content: dict) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def images(count: int) -> dict:
        data = random.randint(256, size=(count, 3072)).astype(np.uint8)
        return {"data": data, key: [index % classes for index in range(count)]}

    monkeypatch.setattr(benchmark, "train_list", [write("a", images(25)), write("b", images(15))])
    monkeypatch.setattr(benchmark, "test_list", [write("t", images(12))])
    names_key = benchmark.meta["key"]
    name, md5 = write("meta", {names_key: [f"class {index}" for index in range(classes)]})
    monkeypatch.setattr(benchmark, "meta", {"filename": name, "key": names_key, "md5": md5})


def write_tree(root: Path, per_class: int, classes: tuple[str, ...] = ("apple", "bear", "cat")) -> None:
    random = np.random.RandomState(0)
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = random.randint(256, size=(20 + label, 24, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
