"""Studies that look as if they had been run: records, curves, predictions and logs, in milliseconds."""

import copy
import csv
import json

import numpy as np

from src.runs.identity import identity
from src.runs.record import Record
from src.studies.table import Table, Variant, jobs_of

STEPS, EPOCHS, IMAGES, CLASSES = 20, 5, 200, 10
PUBLISHED = {"baseline": 82.0, "no_offset": 81.7, "no_bias": 81.4}


def config(name, runs, study, **recipe):
    return {
        "study": study,
        "name": name,
        "axes": [] if name == "baseline" else ["offset"],
        "against": "baseline",
        "published": {"source": "a paper, Table 6", "model": "dat_tiny", "top1": PUBLISHED[name]}
        if name in PUBLISHED
        else None,
        "seed": 0,
        "runs": str(runs),
        "offset": {"_target_": f"src.models.offset.{name}"},
        "model": {"_target_": "src.models.dat.DAT", "name": "micro", "image_size": 64, "num_classes": CLASSES},
        "data": {"name": "digits", "num_classes": CLASSES, "seed": 0},
        "recipe": {"epochs": EPOCHS, "batch_size": 32, "base_lr": 0.016, **recipe},
        "trainer": {"precision": "32-true"},
        "logger": {"wandb": True, "project": "datlab"},
    }


def make_study(runs, scores, *, study="made_up", seeds=(0, 1, 2), unfinished=(), question="Does it matter?", recipe=()):
    """Writes `runs/<study>/` with its frozen table, and returns the table.

    Args:
        scores: mean test accuracy by variant, between 0 and 1; seeds differ by about 0.02.
        unfinished: {(variant, seed): status} of jobs that have no result; "waiting" leaves no record.
    """
    unfinished = dict(unfinished)
    variants = {
        name: Variant(name, config(name, runs, study, **dict(recipe)), (("seed",), ("data", "seed"))) for name in scores
    }
    table = Table(study, question, (), runs, variants, jobs_of(variants.values(), seeds))
    table.write()
    for job in table.jobs:
        status = unfinished.get((job.name, job.seed), "finished")
        if status != "waiting":
            make_run(table, job, scores[job.name], status)
    return table


def make_run(table, job, score, status="finished"):
    """One run of the table; its folder."""
    cfg = table.config(job)
    assert identity(cfg) == job.identity
    folder = table.folder(job)
    folder.mkdir(parents=True)
    common = np.random.default_rng(job.seed)
    own = np.random.default_rng([job.seed, *job.name.encode()])
    label = np.random.default_rng(0).integers(0, CLASSES, IMAGES)
    accuracy = score + 0.02 * common.standard_normal() + 0.005 * own.standard_normal()
    right = common.random(IMAGES) * 0.7 + own.random(IMAGES) * 0.3 < np.clip(accuracy, 0, 1)
    predicted = np.where(right, label, (label + 1) % CLASSES)
    seconds = 60 + 5 * own.random()
    record = {
        "status": status,
        "name": job.name,
        "study": table.study,
        "seed": job.seed,
        "identity": job.identity,
        "config": copy.deepcopy(cfg),
        "git": {"commit": "0123456789abcdef", "dirty": False, "untracked": []},
        "versions": {"python": "3.11.7", "torch": "2.15.0", "lightning": "2.6.6"},
        "hardware": {"host": "ab12", "system": "Linux x86_64", "cpu": "A CPU", "cores": 2, "threads": 1, "gpus": []},
        "data_fingerprint": "218ce4d308f74236",
        "params": 577_160 - 1000 * list(table.variants).index(job.name),
        "macs": 7_702_272 + 10_000 * list(table.variants).index(job.name),
        "wall_seconds": seconds,
        "startup_seconds": 5.0,
        "started": f"2026-01-01T00:0{job.seed % 10}:00+00:00",
        "ended": f"2026-01-01T00:0{job.seed % 10}:59+00:00",
        "attempts": [{"start": "2026-01-01T00:00:00+00:00", "end": None, "status": status, "host": "x", "pid": 1}],
        "error": None,
    }
    if status == "finished":
        record["metrics"] = {
            "val/acc1": float(accuracy),
            "best_epoch": EPOCHS - 1,
            "test/acc1": float(right.mean()),
            "test/loss": 0.5,
            "test/acc1_per_class": [float(right[label == c].mean()) for c in range(CLASSES)],
            "images_per_second": 250 + 20 * own.random(),
            "peak_memory_mb": 1000 + 10 * own.random(),
            "epochs": EPOCHS,
        }
        with (folder / "predictions.npz").open("wb") as file:
            np.savez_compressed(file, label=label, predicted=predicted)
    elif status == "failed":
        record["error"] = {"type": "ValueError", "message": "it broke", "traceback": "Traceback: <b>it broke</b>\n"}
    Record(folder, record).update()
    _curves(folder, score, own, status)
    (folder / "log.txt").write_text("".join(f"2026-01-01 00:00:{n:02d}Z INFO epoch {n}\n" for n in range(EPOCHS)))
    (folder / "progress.json").write_text(json.dumps({"epoch": EPOCHS}))
    return folder


def _curves(folder, score, rng, status):
    at = folder / "curves" / "attempt-1"
    at.mkdir(parents=True)
    columns = [
        "epoch",
        "step",
        "train/loss",
        "val/acc1",
        "val/loss",
        "offset/three/g0/mean_px",
        "offset/three/grad_norm",
    ]
    with (at / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for epoch in range(EPOCHS if status == "finished" else 2):
            done = (epoch + 1) / EPOCHS
            last = STEPS * (epoch + 1) - 1
            writer.writerow({"epoch": epoch, "step": last - 10, "train/loss": 2.3 - 1.8 * done + 0.1 * rng.random()})
            values = {"val/acc1": score * done + 0.02 * rng.random(), "val/loss": 2.3 - 1.8 * done}
            offsets = {"offset/three/g0/mean_px": 5 * done + rng.random(), "offset/three/grad_norm": 0.1 * rng.random()}
            writer.writerow({"epoch": epoch, "step": last, **values, **offsets})
