"""What a variant costs, from a few steps of it: `python -m src.studies.probe runs/<study>/.tables/<key>.json <row>`.

Real data, network, optimiser and checkpoint, in a process with the threads and devices that its jobs will have; nothing
is kept but the figures.
"""

import json
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch

from src.callbacks.efficiency import peak_memory_mb
from src.classifier import ImageClassifier
from src.config import build, build_model
from src.models.checkpointing import checkpoint_activations
from src.recipe import Recipe
from src.studies.table import read_table

WARM_UP = 2  # steps whose time doesn't count: allocation, caches, autotuning
LEAST, MOST = 4, 40  # steps that are timed
SECONDS = 8.0  # after which no further step is timed


class Stopwatch(L.Callback):
    """Seconds of each batch, its loading included; training ends after `SECONDS`."""

    def __init__(self) -> None:
        self.train: list[float] = []
        self.evaluate: list[float] = []
        self.at = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self._note(trainer, self.train)
        timed = len(self.train) - WARM_UP
        if timed >= LEAST and sum(self.train[WARM_UP:]) > SECONDS:
            trainer.should_stop = True

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self._note(trainer, self.evaluate)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.at = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.at = time.perf_counter()

    def _note(self, trainer: L.Trainer, seconds: list[float]) -> None:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize(trainer.strategy.root_device)
        now = time.perf_counter()
        seconds.append(now - self.at)
        self.at = now


def probe(cfg: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a step and of a batch of evaluation (lists), how many of each a run takes, memory and disk.

    Returns:
        `step`, `evaluation`: seconds each time; `steps`, `evaluations`: numbers in a whole run; `saves`, `save`: of
        checkpoints, and seconds of one; `memory_mb`: as in a record; `checkpoint_mb`.
    """
    recipe = Recipe(**cfg["recipe"])
    L.seed_everything(cfg["seed"], verbose=False)
    net, data = build_model(cfg), build(cfg["data"])
    if cfg["activation_checkpointing"]:
        checkpoint_activations(net)
    task = ImageClassifier(net, recipe=recipe, num_classes=cfg["data"]["num_classes"])
    watch = Stopwatch()
    trainer: L.Trainer = build(cfg["trainer"], _partial_=True)(
        max_epochs=-1,  # as many as the steps need
        max_steps=WARM_UP + MOST,
        limit_val_batches=1 + LEAST,
        check_val_every_n_epoch=None,  # validated once, afterwards
        val_check_interval=10**9,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.clip_norm or None,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(task, datamodule=data)
    trainer.validate(task, datamodule=data, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        began, path = time.perf_counter(), Path(folder) / "probe.ckpt"
        trainer.save_checkpoint(path)
        save, size = time.perf_counter() - began, path.stat().st_size
    steps = len(data.train_dataloader())
    evaluations = {split: len(getattr(data, f"{split}_dataloader")()) for split in ("val", "test")}
    return {
        "step": watch.train[WARM_UP:],
        "evaluation": watch.evaluate[1:] or watch.evaluate,
        "steps": recipe.epochs * steps,
        "evaluations": recipe.epochs * evaluations["val"] + evaluations["test"],
        "save": save,
        "saves": 2 * recipe.epochs,
        "memory_mb": peak_memory_mb(trainer.strategy.root_device),
        "checkpoint_mb": size / 1e6,
    }


def main(path: str, name: str) -> None:
    """Prints what `probe` finds as one line of JSON."""
    logging.getLogger("lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    table = read_table(Path(path))
    began = time.perf_counter()
    found = probe(dict(table.variants[name].config))
    print(json.dumps({**found, "took": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
