"""Train one variant, or several with -m: `python -m src.train experiment=ablate_no_offset seed=0`."""

import logging
import signal
import subprocess
import sys
from contextlib import ExitStack
from typing import Any, cast

import hydra
import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from lightning.pytorch.callbacks import EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig
from torch import Tensor

from src.callbacks.efficiency import Efficiency, peak_memory_mb
from src.callbacks.epoch_seed import EpochSeed
from src.callbacks.offset_diagnostics import OffsetDiagnostics, deformable_blocks
from src.callbacks.sigterm import KeepSigterm
from src.classifier import ImageClassifier
from src.complexity import count_macs, count_parameters, on_meta
from src.config import build, build_model, resolve
from src.data.base import DataError, ImageData
from src.models.geometry import GeometryError
from src.recipe import Recipe
from src.runs.console import log_to
from src.runs.identity import identity, run_folder
from src.runs.process import rank
from src.runs.progress import progress
from src.runs.record import read_record
from src.runs.session import (
    CHECKPOINT,
    AlreadyFinished,
    Run,
    RunningElsewhere,
    Terminated,
    claim,
    sigterm_interrupts,
    status_of,
)
from src.runs.wandb_logger import MODES, logged_to_wandb

log = logging.getLogger(__name__)

PROGRESS = {"auto": None, "bar": True, "lines": False}  # whether a terminal watches

INTERRUPTED = 130  # exit code, as of a shell, after Ctrl-C and SIGTERM

# What the user can put right: said in one line, without a traceback.
USER_ERRORS = (GeometryError, DataError, RunningElsewhere, MisconfigurationException, ValueError)


class JobFailed(CompactHydraException):
    """A job of a multirun has no result. Hydra goes on with the others, then prints this without a traceback."""


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """One job; returns the best validation accuracy, so that sweepers can optimise it."""
    several = HydraConfig.get().mode is RunMode.MULTIRUN
    try:
        plain = resolve(cfg)
        if several and (plain["trainer"]["devices"] != 1 or plain["trainer"]["strategy"] != "auto"):
            return _train_apart(plain)
        return train(plain)["val/acc1"]
    except USER_ERRORS as error:
        log.error("%s", error)
        if several:
            raise JobFailed(str(error)) from error  # leaving the process would end the other jobs
        sys.exit(2)
    except Exception as error:
        if several and not isinstance(error, JobFailed):  # now: Hydra prints the first one only, after the last job
            log.error("%s: %s", type(error).__name__, error)
        raise
    except (KeyboardInterrupt, SystemExit) as error:
        if status_of(error) != "interrupted":
            raise
        log.error("interrupted; the same command goes on from the last checkpoint")
        sys.exit(INTERRUPTED)


def train(cfg: dict[str, Any]) -> dict[str, Any]:
    """Train, choose the best epoch on validation data, test it once, and record it all in the run's folder.

    A run of the same configuration and seed that is finished already is not computed again.

    Args:
        cfg: a resolved config, as `load_config` or `resolve` give it.

    Returns:
        The metrics of the record.

    Raises:
        GeometryError, DataError, ValueError: the config can't work; nothing has been computed.
        RunningElsewhere: another process is computing this run.
    """
    facts = check(cfg)
    try:
        with ExitStack() as stack:
            run = stack.enter_context(claim(cfg, root=cfg["runs"], rerun=cfg["rerun"]))
            stack.enter_context(log_to(run.folder))
            run.update(**facts)
            log.info("%s seed %d: %s", cfg["name"], cfg["seed"], run.folder)
            loggers: list[Any] = [_csv_logger(run)]
            if cfg["logger"]["wandb"]:
                loggers.append(stack.enter_context(logged_to_wandb(cfg, run)))
            metrics = _fit_and_test(cfg, run, loggers)
            run.finish(metrics, best={"val/acc1": metrics["val/acc1"], "epoch": metrics["best_epoch"]})
            log.info("val/acc1 %.4f  test/acc1 %.4f", metrics["val/acc1"], metrics["test/acc1"])
            return metrics
    except AlreadyFinished as finished:
        metrics = finished.record["metrics"]
        log.info("%s; test/acc1 %.4f", finished, metrics["test/acc1"])
        return metrics


def check(cfg: dict[str, Any]) -> dict[str, Any]:
    """Everything that can be known to be wrong before any work is spent.

    Returns:
        Facts for the record: `params`, `macs`, `data_fingerprint`.
    """
    Recipe(**cfg["recipe"])
    for key, known in (("progress", PROGRESS), ("logger.mode", MODES)):
        value = cfg["progress"] if key == "progress" else cfg["logger"].get("mode", "auto")
        if value not in known:
            raise ValueError(f"{key} is {value!r}; it must be one of {', '.join(known)}")
    net = on_meta(lambda: build_model(cfg))
    data: ImageData = build(cfg["data"])
    data.check()
    return {
        "params": count_parameters(net),
        "macs": count_macs(net, cfg["model"]["image_size"]),
        "data_fingerprint": data.fingerprint(),
    }


def _fit_and_test(cfg: dict[str, Any], run: Run, loggers: list[Any]) -> dict[str, Any]:
    recipe = Recipe(**cfg["recipe"])
    L.seed_everything(cfg["seed"], verbose=False)
    net, data = build_model(cfg), build(cfg["data"])
    diagnosed = bool(deformable_blocks(net))
    if cfg["compile"]:
        net.compile()
    task = ImageClassifier(net, recipe=recipe, num_classes=cfg["data"]["num_classes"])

    efficiency = Efficiency()
    # Two: with one, `last` is only written when `best` is.
    folder = run.folder / CHECKPOINT.parent
    best = ModelCheckpoint(folder, filename="best", monitor="val/acc1", mode="max", enable_version_counter=False)
    last = ModelCheckpoint(folder, filename=CHECKPOINT.stem, save_on_train_epoch_end=True, enable_version_counter=False)
    callbacks: list[L.Callback] = [EpochSeed(cfg["seed"]), efficiency, LearningRateMonitor("step"), best, last]
    callbacks.append(KeepSigterm())
    callbacks.append(progress(PROGRESS[cfg["progress"]]))
    if diagnosed:
        callbacks.append(OffsetDiagnostics(every=cfg["trainer"]["log_every_n_steps"]))
    if recipe.ema_decay:
        callbacks.append(EMAWeightAveraging(decay=recipe.ema_decay))

    trainer: L.Trainer = build(cfg["trainer"], _partial_=True)(
        max_epochs=recipe.epochs,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.clip_norm or None,
        callbacks=callbacks,
        logger=loggers,
        default_root_dir=run.folder,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the data shards itself, without repeating images
    )
    try:
        trainer.fit(task, datamodule=data, ckpt_path=run.resume_from, weights_only=True)
        best_epoch = _epoch_of(best)
        (results,) = trainer.test(
            task, datamodule=data, ckpt_path=best.best_model_path, weights_only=True, verbose=False
        )
    except BaseException:
        _end_other_ranks(trainer)
        raise
    tested = dict(results)

    if rank() == 0:
        task.save_predictions(run.folder / "predictions.npz")
    per_class = {key: tested.pop(key) for key in sorted(tested) if key.startswith("test/acc1_class/")}
    return {
        "val/acc1": float(cast(Tensor, best.best_model_score)),
        "best_epoch": best_epoch,
        **tested,
        "test/acc1_per_class": list(per_class.values()),
        "images_per_second": efficiency.images_per_second,
        "peak_memory_mb": peak_memory_mb(task.device if trainer.strategy is None else trainer.strategy.root_device),
        "epochs": trainer.current_epoch,
    }


def _epoch_of(checkpoint: ModelCheckpoint) -> int:
    """The epoch, counted from 0, that the best checkpoint was written after."""
    saved = torch.load(checkpoint.best_model_path, map_location="cpu", weights_only=True, mmap=True)
    return int(saved["epoch"])


def _csv_logger(run: Run) -> CSVLogger:
    """curves/attempt-<n>/metrics.csv: a file per attempt, since Lightning's logger starts a file anew."""
    return CSVLogger(run.folder, name="curves", version=f"attempt-{len(run.record.data['attempts'])}")


def _train_apart(cfg: dict[str, Any]) -> float:
    """Trains a job of a multirun by a command of its own.

    Training with several processes wants a process for itself: Lightning repeats its command for the other ranks,
    leaves a process group and an environment behind that the next job would take for its own, and kills the process
    when another rank dies.
    """
    command = [sys.executable, "-m", "src.train", *HydraConfig.get().overrides.task]
    # In a session of its own, or Ctrl-C would reach it twice, once from the terminal.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    with sigterm_interrupts():
        try:
            code = child.wait()
        except KeyboardInterrupt as stop:
            child.send_signal(signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
            child.wait()
            raise
    record = read_record(run_folder(cfg["runs"], cfg["study"], cfg["name"], cfg["seed"], identity(cfg)))
    if code or record is None:
        raise JobFailed(f"{cfg['name']} seed {cfg['seed']} ended with exit code {code}")
    return record["metrics"]["val/acc1"]


def _end_other_ranks(trainer: L.Trainer) -> None:
    """After an error here. Lightning leaves them waiting for this rank, or kills this rank once they are dead."""
    launched: list[subprocess.Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
    processes = list(launched)
    launched.clear()  # Lightning's watch sees none any more
    for process in processes:
        try:
            process.wait(timeout=5)  # one that failed itself may still be writing that down
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
