"""Two processes train what one would, and neither waits for the other when that one is gone."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from src import training
from src.config import CONF, load_config
from src.runs.record import find_records
from src.runs.wandb_logger import find_offline_runs, read_offline_run

TINY = (
    "recipe.epochs=2",
    "recipe.warmup_epochs=1",
    "data.scenes_per_epoch=24",
    "data.val_scenes=7",  # an odd number: the ranks see unequally many
    "data.test_scenes=9",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "progress=lines",
    "logger.mode=offline",
)


def start(*arguments, home):
    return subprocess.Popen(
        [sys.executable, "-m", "src.train", *arguments],
        cwd=CONF.parent,
        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def output(process, timeout):
    """What it says until it ends; a hang fails."""
    try:
        return process.communicate(timeout=timeout)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"still running after {timeout} s:\n{process.communicate()[0]}")


def curve(record, key):
    rows = Path(record["folder"], "curves", "attempt-1", "metrics.csv").read_text().splitlines()
    return [float(row[key]) for row in csv.DictReader(rows) if row.get(key)]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """`-m trainer=ddp` on all CPU devices, which are one, and on two: the output, and a record each."""
    folder = tmp_path_factory.mktemp("sweep")
    sizes = ("trainer=ddp", "trainer.devices=auto,2", "recipe.batch_size=4")
    process = start("-m", *TINY, *sizes, f"runs={folder}", home=folder)
    out = output(process, timeout=240)
    assert process.returncode == 0, out
    return out, {record["config"]["trainer"]["devices"]: record for record in find_records(folder)}


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """One process with the global batch of two."""
    folder = tmp_path_factory.mktemp("single")
    training.train(load_config(*TINY, "recipe.batch_size=8", f"runs={folder}"))
    (record,) = find_records(folder)
    return record


def test_every_job_of_a_multirun_trains(sweep):
    _, records = sweep
    assert {devices: record["status"] for devices, record in records.items()} == {"auto": "finished", 2: "finished"}
    assert len(curve(records["auto"], "train/loss")) == 2 * 24 // 4
    assert len(curve(records[2], "train/loss")) == 2 * 24 // 8


def test_there_is_one_record_one_wandb_run_and_one_voice(sweep):
    out, records = sweep
    assert len(records) == 2
    for record in records.values():
        assert len(record["attempts"]) == 1 and len(find_offline_runs(record["folder"])) == 1
        assert read_offline_run(record["folder"])["exit_code"] == 0
        assert out.count(f"baseline seed 0: {record['folder']}") == 1
    assert "sync_dist" not in out


@pytest.mark.parametrize("key", ["train/loss", "val/loss", "val/acc1", "test/loss", "test/acc1", "lr-AdamW/pg1"])
def test_two_processes_give_the_curves_of_one(key, sweep, single):
    np.testing.assert_allclose(curve(sweep[1][2], key), curve(single, key), rtol=1e-4, atol=1e-5)


def test_two_processes_give_the_metrics_and_predictions_of_one(sweep, single):
    two = sweep[1][2]
    for key in ("val/acc1", "best_epoch", "epochs", "test/acc1", "test/loss"):
        assert two["metrics"][key] == pytest.approx(single["metrics"][key], rel=1e-4)
    np.testing.assert_allclose(two["metrics"]["test/acc1_per_class"], single["metrics"]["test/acc1_per_class"])
    saved = [np.load(Path(record["folder"], "predictions.npz")) for record in (two, single)]
    assert len(saved[0]["label"]) == 9
    for key in ("label", "predicted"):
        np.testing.assert_array_equal(saved[0][key], saved[1][key])


def test_a_rank_that_dies_fails_the_run_and_leaves_nothing_waiting(tmp_path):
    """As the kernel kills it when memory is short."""
    more = ("trainer=ddp", "trainer.devices=2", "recipe.batch_size=4", "recipe.epochs=500")
    process = start(*TINY, *more, f"runs={tmp_path}", home=tmp_path)
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("epoch 2/"):
            break
    else:
        pytest.fail("".join(seen))
    ranks = [pid for pid in children(process.pid) if b"train_ddp_process_1" in command_of(pid)]
    assert len(ranks) == 1
    os.kill(ranks[0], signal.SIGKILL)
    out = output(process, timeout=60)
    assert process.returncode == 1, out
    (record,) = find_records(tmp_path)
    assert record["status"] == "failed"
    assert read_offline_run(record["folder"])["exit_code"] == 1
    with pytest.raises(ProcessLookupError):
        os.kill(ranks[0], 0)


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()
