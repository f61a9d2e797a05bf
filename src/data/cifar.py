"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009)."""

import hashlib
from functools import cached_property
from typing import ClassVar

import numpy as np
import torchvision
from torchvision.datasets.utils import check_integrity

from src.data.images import ArrayImages
from src.data.small_images import SmallImages


class CIFAR10(SmallImages):
    """60,000 colour photographs of 32x32 in 10 classes: 50,000 to train on, 10,000 to test."""

    # Of the training images; the values in common use.
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    side = 32
    advice = (
        "allow data.download=true network access, or unpack cifar-10-python.tar.gz of "
        "https://www.cs.toronto.edu/~kriz/cifar.html there"
    )
    benchmark: ClassVar[type[torchvision.datasets.CIFAR10]] = torchvision.datasets.CIFAR10

    @property
    def files(self) -> dict[str, str]:
        """Name and MD5 of every file, as torchvision knows them."""
        meta = [self.benchmark.meta["filename"], self.benchmark.meta["md5"]]
        listed = [*self.benchmark.train_list, *self.benchmark.test_list, meta]
        return {f"{self.benchmark.base_folder}/{name}": md5 for name, md5 in listed}

    @cached_property
    def _training(self) -> torchvision.datasets.CIFAR10:
        return self.benchmark(self.root, train=True)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self._training.classes)

    def problem(self) -> str | None:
        for name, md5 in self.files.items():
            if not (self.root / name).is_file():
                return f"{name} is missing"
            if not check_integrity(self.root / name, md5):
                return f"{name} is damaged or cut short"
        return None

    def fetch(self) -> None:
        self.benchmark(self.root, download=True)

    def load(self, *, train: bool) -> ArrayImages:
        benchmark = self._training if train else self.benchmark(self.root, train=False)
        return ArrayImages(benchmark.data, np.asarray(benchmark.targets))

    def fingerprint(self) -> str:
        """Of the MD5s, which `check` and every load compare with the files."""
        return hashlib.sha256(repr((self.files, self.val_images)).encode()).hexdigest()[:16]


class CIFAR100(CIFAR10):
    """As CIFAR-10, in 100 classes (the fine labels)."""

    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    advice = CIFAR10.advice.replace("cifar-10-", "cifar-100-")
    benchmark = torchvision.datasets.CIFAR100
