"""Given weights, tested once on the test split, and what was found."""

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import lightning as L

from src.classifier import ImageClassifier
from src.config import build, build_model
from src.data.base import ImageData
from src.models.weights import WeightsError
from src.ranks import end_other_ranks
from src.recipe import Recipe
from src.runs.console import log_to
from src.runs.identity import evaluation_folder
from src.runs.process import rank
from src.runs.progress import progress
from src.runs.provenance import provenance
from src.runs.record import plain, utc, write_json
from src.training import PROGRESS, check

log = logging.getLogger(__name__)

EVALUATION = "evaluation.json"  # not record.json: a table of runs has no row for it
CONFIDENCE = 1.959964  # standard deviations that hold 95 % of a normal distribution


def evaluate(cfg: dict[str, Any]) -> dict[str, Any]:
    """Test the network of `model.weights` on the test split, and keep what was found in a folder of its own.

    What was tested already isn't tested again unless `rerun` is set.

    Args:
        cfg: a resolved config, as `load_config` or `resolve` give it.

    Returns:
        The record: metrics, config, weights, data, versions, hardware.

    Raises:
        WeightsError: no weights are given, or they aren't those of a whole, trained network.
        GeometryError, DataError, ValueError: the config can't work; nothing has been computed.
    """
    if not cfg["model"].get("weights"):
        raise WeightsError(
            "model.weights must be given: add model.weights=FILE to the command; python -m src.checkpoint makes a file "
            "of a published checkpoint or of a run"
        )
    facts = check(cfg)
    if untrained := facts["weights"]["reinitialised"]:
        raise WeightsError(
            f"model.weights: {cfg['model']['weights']['path']} has no {', '.join(untrained)} for this network: nothing "
            f"to test; train them first, with python -m src.train and the same words"
        )
    folder = evaluation_folder(cfg["runs"], cfg)
    if (folder / EVALUATION).exists() and not cfg["rerun"]:
        record = json.loads((folder / EVALUATION).read_text())
        log.info("%s is finished; to compute it once more, set rerun=true", folder)
        _say(record)
    else:
        with log_to(folder):
            log.info("%s: %s", cfg["name"], folder)
            record = _test(cfg, folder, facts)
            _say(record)
    return record


def _say(record: dict[str, Any]) -> None:
    for line in lines(record):
        log.info("%s", line)


def _test(cfg: dict[str, Any], folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    L.seed_everything(cfg["seed"], verbose=False)
    net = build_model(cfg)
    data: ImageData = build(cfg["data"])
    if cfg["compile"]:
        net.compile()
    task = ImageClassifier(net, recipe=Recipe(**cfg["recipe"]), num_classes=cfg["data"]["num_classes"])
    trainer: L.Trainer = build(cfg["trainer"], _partial_=True)(
        callbacks=[progress(PROGRESS[cfg["progress"]])],
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the data shards itself, without repeating images
    )
    log.info("testing on %d images", data.length("test"))
    try:
        (results,) = trainer.test(task, datamodule=data, verbose=False)
    except BaseException:
        end_other_ranks(trainer)
        raise
    tested = dict(results)
    per_class = {key: tested.pop(key) for key in sorted(tested) if key.startswith("test/acc1_class/")}
    images = len(task.predictions["label"])
    intervals = {
        f"{key}_interval": interval(round(tested[key] * images), images)
        for key in ("test/acc1", "test/acc5")
        if key in tested
    }
    made_by = provenance()
    record = {
        "name": cfg["name"],
        "study": cfg["study"],
        "identity": folder.name.rpartition("-")[2],
        "metrics": {**tested, **intervals, "test/acc1_per_class": list(per_class.values()), "images": images},
        "config": cfg,
        **facts,
        "git": made_by["git"],
        "versions": made_by["versions"],
        "hardware": made_by["hardware"],
        "wall_seconds": round(time.monotonic() - began, 3),
        "ended": utc(),
    }
    if rank() == 0:
        task.save_predictions(folder / "predictions.npz")
        write_json(folder / EVALUATION, record)  # last: where it is, all is
    return plain(record)


def interval(right: int, images: int) -> list[float]:
    """Wilson's 95 % interval of an accuracy: what other images of the same kind would have given."""
    share, squared = right / images, CONFIDENCE**2 / images
    middle = (share + squared / 2) / (1 + squared)
    reach = CONFIDENCE * math.sqrt(share * (1 - share) / images + squared / 4 / images) / (1 + squared)
    return [max(0.0, middle - reach), min(1.0, middle + reach)]


def lines(record: dict[str, Any]) -> list[str]:
    """The result in words: accuracies in % with their 95 % interval, the loss, and the paper's figure."""
    metrics, said = record["metrics"], []
    for key, label in (("test/acc1", "top-1"), ("test/acc5", "top-5")):
        if key in metrics:
            low, high = metrics[f"{key}_interval"]
            said.append(f"{label} {100 * metrics[key]:.2f} % (95 %: {100 * low:.2f} to {100 * high:.2f})")
    said.append(f"loss {metrics['test/loss']:.4f}")
    found = [f"{'  '.join(said)}  on {metrics['images']} images of {record['config']['data']['name']}"]
    published = record["config"]["published"] or {}
    if "top1" in published:
        found.append(f"published: top-1 {published['top1']} % ({published.get('model')}, {published.get('source')})")
    return found
