"""Speed and memory: images per second of training, and the most memory that the process has held."""

import resource
import sys
import time
from typing import Any

import lightning as L
import torch


class Efficiency(L.Callback):
    """Logs `train/images_per_second` (all devices, validation left out) and `peak_memory_mb` (this device, or
    the process on a CPU) at the end of every epoch.

    Attributes:
        images_per_second: the median over the epochs seen so far.
    """

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self._images, self._seconds, self._since = 0, 0.0, 0.0

    @property
    def images_per_second(self) -> float | None:
        return sorted(self.epochs)[len(self.epochs) // 2] if self.epochs else None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._images, self._seconds, self._since = 0, 0.0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch[0]) * trainer.world_size
        if batch_idx + 1 == trainer.num_training_batches:
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize(pl_module.device)
            self._seconds = time.perf_counter() - self._since

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._seconds:
            self.epochs.append(self._images / self._seconds)
            pl_module.log("train/images_per_second", self.epochs[-1], rank_zero_only=True)
        pl_module.log("peak_memory_mb", peak_memory_mb(pl_module.device), rank_zero_only=True)


def peak_memory_mb(device: torch.device) -> float:
    """The most memory held so far, in MB of 10^6 bytes: of tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
