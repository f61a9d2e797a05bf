"""One small instance of every data set, on disk where it lives on disk."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torchvision
from data_fakes import write_cifar, write_fashion_mnist, write_tree

from src.data.base import ImageData
from src.data.cifar import CIFAR10, CIFAR100
from src.data.digits import Digits
from src.data.elpv import ELPV
from src.data.fashion_mnist import FashionMNIST
from src.data.folder import Folder
from src.data.imagenet import ImageNet

COMMON = {"image_size": 32, "batch_size": 4, "seed": 0, "workers": 0}
DEIT = {"auto_augment": "rand-m9-mstd0.5-inc1", "color_jitter": 0.4, "erasing": 0.25, "crop": 0.875}
DOWNLOAD = {"download": False, "val_images": 10, "crop_padding": 2}


@pytest.fixture
def make_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ImageData]:
    """make_data(name, **changes): the data set `name` over files that are written once per test."""
    written: set[str] = set()

    def make(name: str, **changes) -> ImageData:
        root = tmp_path / name
        first = name not in written
        written.add(name)
        root.mkdir(exist_ok=True)
        options = COMMON | {"name": name}
        if name == "digits":
            options |= {"num_classes": 10, "digit_scale": [4.0, 6.0], "fragments": 3, "fragment_size": 3}
            options |= {"scenes_per_epoch": 30, "val_scenes": 10, "test_scenes": 11}
            return Digits(**options | changes)
        if name == "fashion_mnist":
            if first:
                write_fashion_mnist(root)
            return FashionMNIST(**options | {"num_classes": 10, "root": str(root)} | DOWNLOAD | changes)
        if name == "cifar10":
            if first:
                write_cifar(root, torchvision.datasets.CIFAR10, "labels", 10, monkeypatch)
            return CIFAR10(**options | {"num_classes": 10, "root": str(root)} | DOWNLOAD | changes)
        if name == "cifar100":
            if first:
                write_cifar(root, torchvision.datasets.CIFAR100, "fine_labels", 100, monkeypatch)
            return CIFAR100(**options | {"num_classes": 100, "root": str(root)} | DOWNLOAD | changes)
        if name == "folder":
            if first:
                write_tree(root, per_class=20)
            options |= {"num_classes": 3, "root": str(root), "val_fraction": 0.15, "test_fraction": 0.15}
            return Folder(**options | DEIT | changes)
        if name == "imagenet":
            if first:
                write_tree(root / "train", per_class=12)
                write_tree(root / "val", per_class=4)
            options |= {"num_classes": 3, "root": str(root), "val_images": 6}
            return ImageNet(**options | DEIT | changes)
        if name == "elpv":
            pytest.importorskip("elpv_dataset", reason="pip install elpv-dataset")
            return ELPV(**options | {"num_classes": 4, "val_fraction": 0.15, "test_fraction": 0.15} | changes)
        raise KeyError(name)

    return make
