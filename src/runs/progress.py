"""How far training is: a bar on a terminal, plain lines anywhere else."""

import logging
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar

from src.runs.durations import duration

# Into log.txt, where `log_to` opened one, and nowhere else: the console gets the lines by print.
log = logging.getLogger(__name__)
log.propagate = False
log.setLevel(logging.INFO)


def progress(terminal: bool | None = None) -> ProgressBar:
    """The callback for where the output goes; it prints on rank zero only.

    Args:
        terminal: whether somebody watches it move; None finds out.
    """
    if terminal is None:
        terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if not terminal:
        return PlainProgress()
    try:
        return Bar()
    except ModuleNotFoundError:
        return TQDMProgressBar(leave=True)


class Bar(RichProgressBar):
    """Lightning's bar of an epoch, with the time left of the whole training behind it."""

    def __init__(self) -> None:
        super().__init__(leave=True)
        self.started, self.batches_before = 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.started, self.batches_before = time.monotonic(), batches_done(trainer)

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)  # the logger's, which says nothing
        left = seconds_left(trainer, time.monotonic() - self.started, self.batches_before) if trainer.training else None
        return metrics if left is None else {"time left": duration(left), **metrics}


class PlainProgress(ProgressBar):
    """A line per epoch, and within long epochs one per `every` seconds:

        epoch 3/15  loss 1.23  val/acc1 0.71  12.3 s/epoch  time left 2 min 30 s

    The loss is the epoch's mean so far. The time left is the remaining share of the steps or epochs at the
    mean pace since training started or resumed here, validation included.

    Args:
        every: seconds.
        write: what to do with a line.
        clock: seconds from any start.
    """

    def __init__(
        self,
        *,
        every: float = 30.0,
        write: Callable[[str], None] = lambda line: print(line, flush=True),
        clock: Callable[[], float] = time.monotonic,
    ):
        super().__init__()
        self.every, self.write, self.clock = every, write, clock
        self.enabled = True

    def enable(self) -> None:
        self.enabled = True

    def disable(self) -> None:
        self.enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started, self.batches_before = self.clock(), batches_done(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epoch_started = self.line_written = self.clock()
        self.loss: Any = 0.0
        self.batches, self.validated = 0, False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.enabled:
            return
        self.batches += 1
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None:
            # Summed where it is: reading it here would make the GPU wait for every batch. Lightning divided
            # it by the batches of a step.
            self.loss = self.loss + loss.detach() * trainer.accumulate_grad_batches
        last = batch_idx + 1 >= trainer.num_training_batches
        if not last and self.clock() - self.line_written >= self.every:
            self._line(trainer, f"batch {batch_idx + 1}/{trainer.num_training_batches}")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.enabled:
            # Else training resumed, or stopped, in the middle of the epoch.
            whole = self.batches >= trainer.num_training_batches
            self._line(trainer, f"{self.clock() - self.epoch_started:.1f} s{'/epoch' if whole else ''}")

    def _line(self, trainer: pl.Trainer, pace: str) -> None:
        parts = [f"epoch {trainer.current_epoch + 1}"]
        if _bounded(trainer.max_epochs):
            parts[0] += f"/{trainer.max_epochs}"
        if _bounded(trainer.max_steps):
            parts.append(f"step {trainer.global_step}/{trainer.max_steps}")
        if self.batches:
            parts.append(f"loss {float(self.loss) / self.batches:.4g}")
        if self.validated:  # else they are an earlier epoch's
            found = sorted(trainer.callback_metrics.items())
            parts += [f"{name} {float(value):.4g}" for name, value in found if name.startswith("val/")]
        parts.append(pace)

        now = self.clock()
        left = seconds_left(trainer, now - self.started, self.batches_before)
        if left is not None:
            parts.append(f"time left {duration(left)}")
        line = "  ".join(parts)
        self.line_written = now
        self.write(line)
        log.info(line)


def batches_done(trainer: pl.Trainer) -> int:
    """Since the run began, in whichever process."""
    return trainer.fit_loop.epoch_loop.total_batch_idx + 1


def seconds_left(trainer: pl.Trainer, elapsed: float, batches_before: int) -> float | None:
    """At the mean pace of the `elapsed` seconds since `batches_before`; None where it can't be known."""
    done, remaining = batches_done(trainer) - batches_before, _batches_left(trainer)
    return remaining * elapsed / done if done and math.isfinite(remaining) else None


def _batches_left(trainer: pl.Trainer) -> float:
    """Infinite if neither epochs nor steps end the training."""
    per_epoch, left = trainer.num_training_batches, math.inf
    if trainer.max_epochs is not None and _bounded(trainer.max_epochs):
        left = trainer.max_epochs * per_epoch - batches_done(trainer)
    if _bounded(trainer.max_steps):
        # The last step of an epoch takes what is there, so a step is a little less than the nominal batches.
        per_step: float = trainer.accumulate_grad_batches
        if math.isfinite(per_epoch):
            per_step = per_epoch / math.ceil(per_epoch / per_step)
        left = min(left, (trainer.max_steps - trainer.global_step) * per_step)
    return max(0.0, left)


def _bounded(limit: int | None) -> bool:
    return limit is not None and limit >= 0
