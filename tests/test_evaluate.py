"""Weights are tested once, as the run that made them tested itself, and the result is kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from smallest_run import SMALLEST

from src import evaluation, training
from src.config import CONF, load_config
from src.models.weights import WeightsError, describe, write
from src.runs.record import find_records
from src.weight_files import export_run

TINY = (*SMALLEST, "data.test_scenes=30", "logger=csv")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run's record, and its weights in a file."""
    folder = tmp_path_factory.mktemp("trained")
    training.train(load_config(*TINY, f"runs={folder}"))
    (record,) = find_records(folder)
    path = folder / "best.safetensors"
    export_run(Path(record["folder"]), out=path)
    return record, path


def config(tmp_path, path, *overrides):
    return load_config(*TINY, f"runs={tmp_path}", f"model.weights={path}", *overrides)


def test_exported_weights_have_exactly_the_accuracy_of_their_run(trained, tmp_path):
    run, path = trained
    record = evaluation.evaluate(config(tmp_path, path))
    for key in ("test/acc1", "test/loss", "test/acc1_per_class"):
        assert record["metrics"][key] == run["metrics"][key]
    (folder,) = (tmp_path / "default" / "baseline").iterdir()
    assert folder.name == f"evaluate-{record['identity']}"
    mine, theirs = (np.load(f"{at}/predictions.npz") for at in (folder, run["folder"]))
    assert (mine["predicted"] == theirs["predicted"]).all() and (mine["label"] == theirs["label"]).all()


def test_the_record_says_what_was_tested_and_on_what(trained, tmp_path, caplog):
    run, path = trained
    cfg = config(tmp_path, path, "experiment=baseline")
    with caplog.at_level("INFO"):
        record = evaluation.evaluate(cfg)
    (file,) = tmp_path.rglob(evaluation.EVALUATION)
    assert json.loads(file.read_text()) == record
    assert record["config"] == cfg
    assert record["weights"]["sha256"] == cfg["model"]["weights"]["sha256"]
    assert record["weights"]["of"]["run"]["identity"] == run["identity"]
    assert record["data_fingerprint"] == run["data_fingerprint"]
    assert record["versions"]["torch"] and record["hardware"] and "commit" in record["git"]
    assert record["metrics"]["images"] == 30
    low, high = record["metrics"]["test/acc1_interval"]
    assert 0 <= low <= record["metrics"]["test/acc1"] <= high <= 1
    assert f"top-1 {100 * record['metrics']['test/acc1']:.2f} % (95 %: " in caplog.text
    assert "published: top-1 82.0 % (dat_tiny" in caplog.text
    assert list(find_records(tmp_path)) == []  # not a run


def test_it_is_computed_once_and_again_when_asked(trained, tmp_path, monkeypatch):
    _, path = trained
    first = evaluation.evaluate(config(tmp_path, path))
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(path.read_bytes())

    def again(*_):
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "_test", again)
        # What only training depends on, and where the weights lie, doesn't make it another evaluation.
        assert evaluation.evaluate(config(tmp_path, moved, "seed=3", "recipe.epochs=2")) == first
        with pytest.raises(AssertionError):
            evaluation.evaluate(config(tmp_path, path, "rerun=true"))
        with pytest.raises(AssertionError):
            evaluation.evaluate(config(tmp_path, path, "data.test_scenes=12"))
    again = evaluation.evaluate(config(tmp_path, path, "rerun=true"))
    assert again["metrics"] == first["metrics"] and again["ended"] > first["ended"]


def test_averaged_weights_are_tested_as_their_run_tested_them(tmp_path):
    training.train(load_config(*TINY, f"runs={tmp_path}", "recipe.ema_decay=0.5"))
    (run,) = find_records(tmp_path)
    path = tmp_path / "best.safetensors"
    export_run(Path(run["folder"]), out=path)
    metrics = evaluation.evaluate(config(tmp_path, path))["metrics"]
    assert (metrics["test/acc1"], metrics["test/loss"]) == (run["metrics"]["test/acc1"], run["metrics"]["test/loss"])


def test_untrained_networks_are_refused(trained, tmp_path):
    _, path = trained
    with pytest.raises(WeightsError, match=r"model\.weights must be given"):
        evaluation.evaluate(load_config(*TINY, f"runs={tmp_path}"))
    headless = tmp_path / "headless.safetensors"
    write(headless, {}, describe(path) | {"reinitialised": []})
    for overrides in (("model.num_classes=12",),):
        with pytest.raises(WeightsError, match=r"has no head\.weight, head\.bias for this network: nothing to test"):
            evaluation.evaluate(config(tmp_path, path, *overrides))
    with pytest.raises(WeightsError, match="it lacks stem"):
        evaluation.evaluate(config(tmp_path, headless))
    assert not list(tmp_path.rglob(evaluation.EVALUATION))


@pytest.mark.parametrize(("right", "images"), [(0, 30), (3, 30), (30, 30), (41000, 50000)])
def test_the_interval_is_wilsons(right, images):
    low, high = binomtest(right, images).proportion_ci(method="wilson")
    assert evaluation.interval(right, images) == pytest.approx([low, high], abs=1e-6)


def run(*arguments):
    env = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "src.evaluate", *arguments],
        cwd=CONF.parent,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout.splitlines()


def test_the_command_line_ends_with_the_result_or_one_line_of_what_is_wrong(trained, tmp_path):
    _, path = trained
    code, out = run(*TINY, f"runs={tmp_path}", f"model.weights={path}")
    assert code == 0 and out[-1].startswith("top-1 ") and out[-1].endswith("on 30 images of digits")
    code, out = run(*TINY, f"runs={tmp_path}")
    assert code == 2 and len(out) == 1 and out[0].startswith("model.weights must be given")
