"""Whole runs, small: each experiment trains, a broken run resumes exactly, and the record tells the truth."""

import csv
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from smallest_run import SMALLEST

from src import table, training
from src.config import CONF, load_config
from src.data.base import DataError
from src.models import bilinear
from src.models.geometry import GeometryError
from src.reports.points import read_points
from src.runs.record import find_records, read_record
from src.runs.wandb_logger import read_offline_run

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
TINY = (*SMALLEST, "recipe.epochs=2", "recipe.warmup_epochs=1")


def tiny(tmp_path, *overrides):
    return load_config(*TINY, f"runs={tmp_path}", *overrides)


def test_a_run_keeps_its_freed_memory(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(training, "keep_freed_memory", lambda: kept.append(True))
    with pytest.raises(GeometryError):
        training.train(tiny(tmp_path, "model.stages.three.num_heads=7"))
    assert kept == [True], "whichever command starts it"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_trains(name, tmp_path):
    cfg = tiny(tmp_path, f"experiment={name}", "recipe.epochs=1", "recipe.warmup_epochs=0", "logger=csv")
    metrics = training.train(cfg)
    (record,) = find_records(tmp_path)
    assert record["status"] == "finished" and record["name"] == cfg["name"]
    assert metrics["test/acc1"] == record["metrics"]["test/acc1"]
    assert np.isfinite(metrics["test/loss"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run with W&B offline: its config and record."""
    cfg = tiny(tmp_path_factory.mktemp("runs"), "logger.mode=offline")
    training.train(cfg)
    (record,) = find_records(cfg["runs"])
    return cfg, record


def test_the_record_holds_what_a_table_needs(finished):
    cfg, record = finished
    assert record["config"].pop("pinned")["data"] == record["data_fingerprint"]
    assert record["config"] == cfg
    assert record["params"] > 0 and record["macs"] > 0 and record["wall_seconds"] > 0
    assert record["data_fingerprint"] and record["versions"]["torch"] and record["hardware"]
    metrics = record["metrics"]
    assert len(metrics["test/acc1_per_class"]) == 10
    assert 0 <= metrics["best_epoch"] < 2
    assert metrics["images_per_second"] > 0 and metrics["peak_memory_mb"] > 0


def test_predictions_are_those_that_were_scored(finished):
    _, record = finished
    saved = np.load(f"{record['folder']}/predictions.npz")
    assert len(saved["label"]) == 6
    assert (saved["label"] == saved["predicted"]).mean() == pytest.approx(record["metrics"]["test/acc1"])


def test_points_are_those_of_the_best_weights(finished):
    _, record = finished
    saved = read_points(Path(record["folder"]))
    assert saved is not None and saved.images.shape[0] == 3 and saved.images.dtype == np.uint8
    assert list(saved.blocks) == ["three.1", "four.1"]
    for block in saved.blocks.values():
        assert block.points.shape[2:] == block.reference.shape
        assert np.abs(block.points - block.reference).max() > 0


def test_energy_is_a_counter_s_or_nothing(finished):
    _, record = finished
    energy, source = (record["metrics"].get(key) for key in ("energy_kj", "energy_source"))
    assert (energy is None) == (source is None)
    assert energy is None or energy > 0


def test_curves_are_on_disk_with_offsets(finished):
    _, record = finished
    curves = Path(record["folder"], "curves", "attempt-1", "metrics.csv")
    rows = list(csv.DictReader(curves.read_text().splitlines()))
    columns = {key for row in rows for key, value in row.items() if value}
    assert {"train/loss", "val/acc1", "val/loss", "test/acc1", "train/images_per_second", "lr-AdamW/pg1"} <= columns
    for stage in ("three", "four"):
        assert {f"offset/{stage}/g0/{what}" for what in ("mean_px", "p95_px", "outside")} <= columns
        assert f"offset/{stage}/grad_norm" in columns


def test_wandb_holds_config_metrics_summary_and_state(finished):
    cfg, record = finished
    run = read_offline_run(record["folder"])
    assert run["config"]["model"]["stages"] == cfg["model"]["stages"]
    assert run["config"]["identity"] == record["identity"]
    assert run["exit_code"] == 0
    assert run["summary"]["test/acc1"] == pytest.approx(record["metrics"]["test/acc1"])
    assert any("val/acc1" in row for row in run["history"])


def test_a_finished_run_is_not_computed_again(finished, monkeypatch):
    cfg, record = finished
    monkeypatch.setattr(training, "_fit_and_test", lambda *_: pytest.fail("computed again"))
    assert training.train(cfg) == record["metrics"]


def test_a_broken_run_resumes_and_ends_as_if_nothing_had_happened(tmp_path, monkeypatch):
    """Bitwise: the same weights and metrics. Drop path and mixup make each step depend on the random numbers."""
    overrides = ("recipe.epochs=3", "model.drop_path_rate=0.2", "recipe.mixup=0.8", "logger=csv", "seed=5")
    whole = tiny(tmp_path / "whole", *overrides)
    broken = tiny(tmp_path / "broken", *overrides)
    training.train(whole)

    class Power(Exception):
        pass

    def fail(self, batch, batch_idx):
        if self.current_epoch == 2:
            raise Power("cut")
        return step(self, batch, batch_idx)

    step = training.ImageClassifier.training_step
    with monkeypatch.context() as patch:
        patch.setattr(training.ImageClassifier, "training_step", fail)
        with pytest.raises(Power):
            training.train(broken)
    (record,) = find_records(tmp_path / "broken")
    assert record["status"] == "failed" and record["error"]["message"] == "cut"

    training.train(broken)
    (one,), (other,) = find_records(tmp_path / "whole"), find_records(tmp_path / "broken")
    assert [attempt["status"] for attempt in other["attempts"]] == ["failed", "finished"]
    assert one["identity"] == other["identity"]
    for key in ("val/acc1", "test/acc1", "test/loss", "best_epoch", "test/acc1_per_class"):
        assert one["metrics"][key] == other["metrics"][key]
    states = [torch.load(f"{r['folder']}/checkpoints/last.ckpt", weights_only=True) for r in (one, other)]
    for name, tensor in states[0]["state_dict"].items():
        assert torch.equal(tensor, states[1]["state_dict"][name]), name


def test_variants_of_a_seed_see_the_same_scenes(tmp_path, monkeypatch):
    seen = []

    def watch(self, batch, batch_idx):
        seen.append(batch[0].sum().item())
        return step(self, batch, batch_idx)

    step = training.ImageClassifier.training_step
    monkeypatch.setattr(training.ImageClassifier, "training_step", watch)
    for name in ("baseline", "ablate_no_offset"):
        training.train(tiny(tmp_path, f"experiment={name}", "logger=csv"))
    half = len(seen) // 2
    assert half and seen[:half] == seen[half:]


@pytest.mark.parametrize(
    ("overrides", "error", "says"),
    [
        (["model.stages.three.offset_groups=3"], GeometryError, "stage three"),
        (["data=fashion_mnist", "data.download=false", "data.root=/nowhere"], DataError, "fashion"),
        (["recipe.warmup_epochs=99"], ValueError, "recipe.warmup_epochs"),
        (["recipe.mixup=0.5", "recipe.batch_size=3"], ValueError, "recipe.batch_size"),
        (["recipe.batch_size=0"], ValueError, "recipe.batch_size"),
        (["logger.mode=sometimes"], ValueError, "logger.mode"),
        (["progress=loud"], ValueError, "progress"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(overrides, error, says, tmp_path):
    cfg = load_config(f"runs={tmp_path}", *overrides)
    with pytest.raises(error, match=says) as caught:
        training.train(cfg)
    assert "\n" not in str(caught.value)
    assert not list(find_records(tmp_path))


def test_options_of_the_recipe_run(tmp_path):
    """Averaged weights, accumulation, mixup, cutmix, bfloat16, label smoothing, and clipping with them."""
    cfg = tiny(
        tmp_path,
        "recipe.ema_decay=0.9",
        "recipe.accumulate=2",
        "recipe.mixup=0.8",
        "recipe.cutmix=1.0",
        "recipe.label_smoothing=0.1",
        "trainer.precision=bf16-mixed",
        "logger=csv",
    )
    assert np.isfinite(training.train(cfg)["test/loss"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_python_drops_stops_the_run_all_the_same(tmp_path, monkeypatch, sent):
    """A handler's exception is ignored where an object is being ended."""

    class Ending:
        def __del__(self):
            os.kill(os.getpid(), sent)

    steps, step = [], training.ImageClassifier.training_step

    def watched(self, batch, batch_idx):
        steps.append(batch_idx)
        Ending()
        return step(self, batch, batch_idx)

    monkeypatch.setattr(training.ImageClassifier, "training_step", watched)
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            training.train(tiny(tmp_path, "logger=csv"))
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    assert steps == [0]
    (record,) = find_records(tmp_path)
    assert record["status"] == "interrupted"


def test_a_deterministic_run_reads_by_gather(tmp_path, monkeypatch):
    """Which is chosen while Lightning asks torch for determinism, and only then."""
    used = set()

    def watched(name, kernel):
        def read(x, grid):
            used.update([] if x.is_meta else [name])  # before a run, costs are counted without data
            return kernel(x, grid)

        return read

    for name in ("gather", "grid_sample"):
        monkeypatch.setattr(bilinear, name, watched(name, getattr(bilinear, name)))
    losses = {}
    for deterministic, kernel in ((True, "gather"), (False, "grid_sample")):
        used.clear()
        cfg = tiny(tmp_path, "logger=csv", f"trainer.deterministic={str(deterministic).lower()}")
        losses[kernel] = training.train(cfg)["test/loss"]
        assert used == {kernel}
    assert losses["gather"] == pytest.approx(losses["grid_sample"], rel=1e-3)


def test_the_record_says_how_deformable_attention_was_computed(finished):
    _, record = finished
    assert record["deformable_kernels"] == ["dense"]  # maps are small


def test_record_is_json_that_others_can_read(finished):
    _, record = finished
    text = Path(record["folder"], "record.json").read_text()
    assert json.loads(text)["status"] == "finished" == read_record(record["folder"])["status"]


@pytest.mark.parametrize(("num_classes", "metrics"), [(10, ["loss", "acc1"]), (11, ["loss", "acc1", "acc5"])])
def test_top5_is_there_where_it_says_something(num_classes, metrics, tmp_path):
    cfg = tiny(tmp_path)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(num_classes))
    task = training.ImageClassifier(net, recipe=training.Recipe(**cfg["recipe"]), num_classes=num_classes)
    assert [list(task.metrics[split]) for split in ("val_", "test_")] == [metrics, metrics]


def test_the_table_of_a_study_survives_its_csv(finished, tmp_path):
    _, record = finished
    rows = table.rows(Path(record["folder"]).parent)
    table.write_csv(rows, tmp_path / "results.csv")
    assert table.markdown(table.read_csv(tmp_path / "results.csv")) == table.markdown(rows)
    assert f"| baseline | 1 | {100 * record['metrics']['test/acc1']:.1f} |" in table.markdown(rows)
    assert record["hardware"]["cpu"] in table.hardware(rows) or record["hardware"]["gpus"]
