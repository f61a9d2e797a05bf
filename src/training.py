"""One run from its config to its record: check, fit, choose on validation data, test once."""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from src.callbacks.divergence import Divergence
from src.callbacks.efficiency import Efficiency, peak_memory_mb
from src.callbacks.energy import Energy
from src.callbacks.epoch_seed import EpochSeed
from src.callbacks.kept_weights import KeptWeights
from src.callbacks.offset_diagnostics import OffsetDiagnostics, deformable_blocks
from src.callbacks.points_pictures import PointsPictures
from src.callbacks.progress_file import ProgressFile
from src.callbacks.stop_signals import StopSignals
from src.classifier import ImageClassifier
from src.complexity import count_macs, count_parameters, on_meta
from src.config import build, build_model
from src.freed_memory import keep_freed_memory
from src.looking.points import points_on
from src.models.checkpointing import checkpoint_activations
from src.models.deformable_op import choose
from src.models.weights import provenance_of
from src.pins import fingerprint_of, pinned
from src.ranks import end_other_ranks
from src.recipe import Recipe
from src.reports.points import POINTS, write_points
from src.reports.results import PREDICTIONS
from src.runs.checkpoint_io import WholeCheckpointIO, whole
from src.runs.code import code_files
from src.runs.console import log_to
from src.runs.process import rank, seconds_since_start
from src.runs.progress import progress
from src.runs.session import BEST, CHECKPOINT, AlreadyFinished, Run, claim
from src.runs.wandb_artifacts import log_checkpoints
from src.runs.wandb_logger import MODES, logged_to_wandb

log = logging.getLogger(__name__)

# Lightning advertises a logger of its own at each run.
logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda said: "litlogger" not in said.getMessage())

PROGRESS = {"auto": None, "bar": True, "lines": False}  # whether a terminal watches

# Groups of conf/ that only our own network is built of.
PARTS_OF_DAT = {
    *("stem", "downsampling", "local_perception", "layer_scale", "feed_forward", "attention", "offset"),
    *("offset_range", "reference_grid", "sampling", "position_bias", "local_encoding"),
}


def train(cfg: dict[str, Any]) -> dict[str, Any]:
    """Train, choose the best epoch on validation data, test it once, and record it all in the run's folder.

    A run of the same configuration and seed that is finished already is not computed again.

    Args:
        cfg: a resolved config, as `load_config` or `resolve` give it.

    Returns:
        The metrics of the record.

    Raises:
        GeometryError, DataError, ValueError: the config can't work, or is pinned to other data or code; nothing has
            been computed.
        RunningElsewhere: another process is computing this run.
    """
    keep_freed_memory()  # here: whichever way a run is started
    facts = check(cfg)
    cfg = pinned(cfg, facts["data_fingerprint"])
    startup = seconds_since_start()
    try:
        with ExitStack() as stack:
            run = stack.enter_context(claim(cfg, root=cfg["runs"], rerun=cfg["rerun"]))
            stack.enter_context(log_to(run.folder))
            run.update(**facts, code=code_files(cfg), startup_seconds=startup)
            log.info("%s seed %d: %s", cfg["name"], cfg["seed"], run.folder)
            loggers: list[Any] = [_csv_logger(run)]
            if cfg["logger"]["wandb"]:
                loggers.append(stack.enter_context(logged_to_wandb(cfg, run)))
            with choose.watched() as kernels:
                metrics = _fit_and_test(cfg, run, loggers)
            run.update(deformable_kernels=sorted(kernels))
            run.finish(metrics, best={"val/acc1": metrics["val/acc1"], "epoch": metrics["best_epoch"]})
            if cfg["logger"]["wandb"] and cfg["logger"].get("checkpoints"):
                log_checkpoints(loggers[-1], run)
            log.info("val/acc1 %.4f  test/acc1 %.4f", metrics["val/acc1"], metrics["test/acc1"])
            return metrics
    except AlreadyFinished as finished:
        metrics = finished.record["metrics"]
        log.info("%s; test/acc1 %.4f", finished, metrics["test/acc1"])
        return metrics


def check(cfg: dict[str, Any]) -> dict[str, Any]:
    """Everything that can be known to be wrong before any work is spent.

    Returns:
        Facts for the record: `params`, `macs`, `data_fingerprint`, and `weights`, None if the network draws them.
    """
    Recipe(**cfg["recipe"])
    options = (("progress", cfg["progress"], PROGRESS), ("logger.mode", cfg["logger"].get("mode", "auto"), MODES))
    for key, value, known in options:
        if value not in known:
            raise ValueError(f"{key} is {value!r}; it must be one of {', '.join(known)}")
    choose.check_run(
        cfg["deformable_kernel"],
        accelerator=cfg["trainer"].get("accelerator", "auto"),
        deterministic=bool(cfg["trainer"].get("deterministic")),
        compiled=cfg["compile"],
    )
    absent = [axis for axis in cfg["axes"] if "stages" not in cfg["model"] and axis.split(".")[0] in PARTS_OF_DAT]
    if absent:
        raise ValueError(
            f"experiment {cfg['name']} changes {', '.join(absent)}, which {cfg['model']['name']} doesn't have; leave "
            f"the experiment out, or choose a model of conf/model"
        )
    net = on_meta(lambda: build_model(cfg))
    if cfg["activation_checkpointing"]:
        checkpoint_activations(net)
    return {
        "params": count_parameters(net),
        "macs": count_macs(net, cfg["model"]["image_size"]),
        "data_fingerprint": fingerprint_of(cfg["data"]),
        "weights": provenance_of(net, cfg["model"]) if cfg["model"].get("weights") else None,
    }


def _fit_and_test(cfg: dict[str, Any], run: Run, loggers: list[Any]) -> dict[str, Any]:
    recipe = Recipe(**cfg["recipe"])
    L.seed_everything(cfg["seed"], verbose=False)
    net, data = build_model(cfg), build(cfg["data"])
    diagnosed = bool(deformable_blocks(net))
    if cfg["activation_checkpointing"]:
        checkpoint_activations(net)
    if cfg["compile"]:
        net.compile()
    task = ImageClassifier(net, recipe=recipe, num_classes=cfg["data"]["num_classes"])

    efficiency, energy = Efficiency(), Energy()
    # Two: with one, `last` is only written when `best` is.
    folder = run.folder / CHECKPOINT.parent
    best = ModelCheckpoint(folder, filename=BEST.stem, monitor="val/acc1", mode="max", enable_version_counter=False)
    last = ModelCheckpoint(folder, filename=CHECKPOINT.stem, save_on_train_epoch_end=True, enable_version_counter=False)
    callbacks: list[L.Callback] = [EpochSeed(cfg["seed"]), efficiency, energy, LearningRateMonitor("step"), best, last]
    callbacks += [StopSignals(), Divergence(), progress(PROGRESS[cfg["progress"]]), ProgressFile(run.folder)]
    callbacks.append(KeptWeights(folder, every=cfg["watch"]["weights"]))
    if diagnosed:
        callbacks.append(OffsetDiagnostics(every=cfg["trainer"]["log_every_n_steps"]))
        callbacks.append(PointsPictures(run.folder, every=cfg["watch"]["points"]))
    if recipe.ema_decay:
        callbacks.append(EMAWeightAveraging(decay=recipe.ema_decay))

    trainer: L.Trainer = build(cfg["trainer"], _partial_=True)(
        max_epochs=recipe.epochs,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.clip_norm or None,
        callbacks=callbacks,
        plugins=[WholeCheckpointIO()],
        logger=loggers,
        default_root_dir=run.folder,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the data shards itself, without repeating images
    )
    try:
        trainer.fit(task, datamodule=data, ckpt_path=run.resume_from, weights_only=True)
        best_epoch, best_score = _restore(task, best)
        (results,) = trainer.test(task, datamodule=data, verbose=False)
    except BaseException:
        end_other_ranks(trainer)
        raise
    tested = dict(results)

    if rank() == 0:
        task.save_predictions(run.folder / PREDICTIONS)
        points = points_on(net, data)
        if points is not None:
            write_points(run.folder / POINTS, points)
    per_class = {key: tested.pop(key) for key in sorted(tested) if key.startswith("test/acc1_class/")}
    return {
        "val/acc1": best_score,
        "best_epoch": best_epoch,
        **tested,
        "test/acc1_per_class": list(per_class.values()),
        "images_per_second": efficiency.images_per_second,
        "peak_memory_mb": peak_memory_mb(trainer.strategy.root_device),
        "energy_kj": energy.kilojoules,
        "energy_source": energy.source,
        "epochs": trainer.current_epoch,
    }


def _restore(task: ImageClassifier, checkpoint: ModelCheckpoint) -> tuple[int, float]:
    """Puts back the weights that validation chose, and returns their epoch, counted from 0, and their score.

    Where weights are averaged, those are the averaged ones; Lightning's own `ckpt_path` puts back the others.

    Raises:
        RuntimeError: the file was damaged since it was saved.
    """
    path = Path(checkpoint.best_model_path)
    if not whole(path):
        raise RuntimeError(
            f"{path} is damaged, and with it the best epoch's weights; start the job again, it begins anew"
        )
    saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    task.load_state_dict(saved["state_dict"])
    # The file's own: a run that went on from an earlier checkpoint may not have reached that score again.
    score = saved["callbacks"][checkpoint.state_key]["best_model_score"]
    return int(saved["epoch"]), float(score)


def _csv_logger(run: Run) -> CSVLogger:
    """curves/attempt-<n>/metrics.csv: a file per attempt, since Lightning's logger starts a file anew."""
    return CSVLogger(run.folder, name="curves", version=f"attempt-{len(run.record.data['attempts'])}")
