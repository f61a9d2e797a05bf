"""Digit scenes that break in a way of their own, as long as a file of that name lies in `root`."""

import os
import signal
import time
from pathlib import Path

import torch

from src.data.base import DataError
from src.data.digits import Digits, DigitScenes


class FaultyDigits(Digits):
    """Args: `root`: where the faults lie; `fault`: its name."""

    def __init__(self, *, root, fault, **others):
        super().__init__(**others)
        self.root, self.fault = Path(root), fault

    def check(self):
        super().check()
        if self.fault == "vanish" and not (self.root / "images").exists():
            raise DataError(f"no images at {self.root}/images; put them there")

    def make_dataset(self, split):
        scenes = super().make_dataset(split)
        if split == "train":
            scenes.__class__ = FaultyScenes
            scenes.root, scenes.fault = self.root, self.fault
        return scenes


class FaultyScenes(DigitScenes):
    def __getitems__(self, numbers):
        items = super().__getitems__(numbers)
        epoch = numbers[0] // self.length
        if epoch >= 2 and (self.root / self.fault).exists():
            (self.root / f"{self.fault}.seen").touch()
            return getattr(self, self.fault)(items)
        return items

    def diverge(self, items):
        return [(image * float("nan"), label) for image, label in items]

    def hang(self, items):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as in a library that never comes back
        time.sleep(3600)

    def memory(self, items):
        torch.empty(2**50)

    def kill(self, items):
        """Once: what the kernel does when memory is short."""
        (self.root / "kill").unlink()
        os.kill(os.getpid(), signal.SIGKILL)

    def slow(self, items):
        time.sleep(0.3)
        return items

    def vanish(self, items):
        raise FileNotFoundError(self.root / "images" / "7.png")
