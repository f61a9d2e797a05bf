"""`progress.json`: how far a run is, for whoever watches it from outside.

The heartbeat shows that the process lives; that this file changes shows that the work moves.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor

from src.runs.progress import batches_done, seconds_left
from src.runs.record import PROGRESS, utc, write_json

EVERY = 2.0  # seconds


class ProgressFile(L.Callback):
    """Writes it on rank zero, at most every `EVERY` seconds and at the ends of epochs and validations:

        phase               "fit" or "test"
        epoch, epochs       the one being computed, counted from 1, and how many there are
        step, steps         updates of the weights done, and how many there are
        images_per_second   since the last time it was written, over all devices
        seconds_left        of the training, at its mean pace here; null where it can't be known
        metrics             the latest train/loss and val/*
        time                UTC

    `src.runs.record.read_progress` reads it.

    Args:
        folder: the run's.
        clock: seconds from any start.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic):
        self.path, self.clock = folder / PROGRESS, clock
        self.metrics: dict[str, float] = {}
        self.loss: Tensor | None = None
        self.steps: float | None = None
        self.images_per_second: float | None = None
        self.written = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.started, self.batches_before = self.clock(), batches_done(trainer)
        self.steps, self.processes = trainer.estimated_stepping_batches, trainer.world_size
        self._restart_pace()
        self._write(trainer, "fit")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.images += len(batch[0]) * self.processes
        self.loss = outputs["loss"].detach()
        if self._is_due():
            self._read(trainer)
            self.images_per_second = self.images / max(self.clock() - self.pace_since, 1e-9)
            self._restart_pace()
            self._write(trainer, "fit")

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        if self._is_due():  # without reading metrics: the ranks are not done with them
            self._write(trainer, "fit")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._read(trainer)
        self._write(trainer, "fit")
        self._restart_pace()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._read(trainer)
        self._write(trainer, "fit")
        self._restart_pace()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, "test")

    def on_test_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        if self._is_due():
            self._write(trainer, "test")

    def _is_due(self) -> bool:
        return self.clock() - self.written >= EVERY

    def _restart_pace(self) -> None:
        self.images, self.pace_since = 0, self.clock()

    def _read(self, trainer: L.Trainer) -> None:
        """Makes the GPU's values this process's, so only when they are written."""
        if trainer.is_global_zero:
            found = {name: value for name, value in trainer.callback_metrics.items() if value.numel() == 1}
            self.metrics |= {name: float(value) for name, value in found.items() if name.startswith("val/")}
            if self.loss is not None:  # Lightning divided it by the batches of a step
                self.metrics["train/loss"] = float(self.loss) * trainer.accumulate_grad_batches

    def _write(self, trainer: L.Trainer, phase: str) -> None:
        self.written = self.clock()
        if not trainer.is_global_zero:
            return
        fit = phase == "fit"
        content = {
            "phase": phase,
            "epoch": trainer.current_epoch + 1 if fit else trainer.current_epoch,
            "epochs": trainer.max_epochs,
            "step": trainer.global_step,
            "steps": self.steps if fit else trainer.global_step,
            "images_per_second": self.images_per_second,
            "seconds_left": seconds_left(trainer, self.clock() - self.started, self.batches_before) if fit else None,
            "metrics": self.metrics,
            "time": utc(),
        }
        with suppress(OSError):  # a full disk; it ends no run that could go on without this file
            write_json(self.path, content, durable=False)
