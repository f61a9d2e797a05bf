"""The command line as its users have it: whole processes, without a terminal, an account or anybody to ask."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from smallest_run import SMALLEST as TINY

from src import training
from src.config import CONF, load_config
from src.runs.record import find_records
from src.runs.wandb_logger import read_offline_run

ROOT = CONF.parent
OFFLINE = "logger.mode=offline"


def start(*arguments, home=None):
    """A process group of its own, so that whatever it leaves behind is found by `left_behind`."""
    env = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"} | ({"HOME": str(home)} if home else {})
    return subprocess.Popen(
        [sys.executable, "-m", "src.train", *arguments],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(*arguments, home=None, timeout=240):
    """(exit code, stdout, stderr); a hang fails."""
    process = start(*arguments, home=home)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"still running after {timeout} s: {arguments}\n{process.communicate()}")
    return process.returncode, out, err


def until(process, text):
    """Reads stdout up to the line that begins with `text`."""
    for line in process.stdout:
        if line.startswith(text):
            return
    pytest.fail(f"ended without {text!r}: {process.stderr.read()}")


def left_behind(process):
    """Whether a child of the ended process lives, after a moment in which W&B's may go."""
    for _ in range(50):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    return True


def by_name(root):
    return {(record["name"], record["seed"]): record for record in find_records(root)}


def test_a_run_finishes_and_is_not_computed_again(tmp_path):
    """Without even a home: no account, no cache, no question."""
    command = (*TINY, OFFLINE, f"runs={tmp_path}")
    code, out, err = run(*command)
    assert code == 0, err
    (record,) = find_records(tmp_path)
    assert record["status"] == "finished"
    assert f"test/acc1 {record['metrics']['test/acc1']:.4f}" in out

    code, out, err = run(*command)
    (line,) = out.splitlines()
    assert (code, "is finished" in line) == (0, True), err
    (again,) = find_records(tmp_path)
    assert again == record
    assert not (ROOT / "train.log").exists()  # the run's folder has its log


def test_a_sweep_over_variants_and_seeds_keeps_them_apart(tmp_path):
    """Jobs that can't work are refused, each in a line; the others run, each as its own W&B run."""
    sweep = ("experiment=baseline,ablate_no_offset", "seed=0,1", "model.stages.three.offset_groups=3,1")
    code, out, err = run("-m", *TINY, *sweep, OFFLINE, f"runs={tmp_path}", home=tmp_path)
    assert code == 1
    assert sum(line.startswith("stage three: offset_groups 3") for line in out.splitlines()) == 4
    assert "stage three: offset_groups 3" in err and "Traceback" not in err
    records = by_name(tmp_path)
    assert set(records) == {(name, seed) for name in ("baseline", "ablate_no_offset") for seed in (0, 1)}
    assert len({record["wandb"]["id"] for record in records.values()}) == 4
    for name, seed in (("baseline", 0), ("ablate_no_offset", 1)):
        read = read_offline_run(records[name, seed]["folder"])
        assert (read["run_id"], read["exit_code"]) == (records[name, seed]["wandb"]["id"], 0)
        assert read["name"] == f"{name}-s{seed}"
        assert set(read["tags"]) == {"default", "digits", "micro"} | ({"offset"} if name != "baseline" else set())
        assert read["config"]["seed"] == seed


def test_a_job_that_fails_in_training_is_recorded_and_the_others_go_on(tmp_path):
    sweep = ("experiment=glob(ablate_kernel_*)", "seed=range(1,2)", "data.scenes_per_epoch=2,8")
    code, out, err = run("-m", *TINY, *sweep, OFFLINE, f"runs={tmp_path}", home=tmp_path)
    assert code == 1
    assert sum("the training set has 2 images" in line for line in out.splitlines()) == 2
    assert "Traceback" not in err
    records = {}
    for record in find_records(tmp_path):
        records[record["name"], record["seed"], record["config"]["data"]["scenes_per_epoch"]] = record
    ended = {key: record["status"] for key, record in records.items()}
    names, expected = ("ablate_kernel_3", "ablate_kernel_5"), {2: "failed", 8: "finished"}
    assert ended == {(name, 1, n): expected[n] for name in names for n in expected}
    for scenes, wandb_code in ((2, 1), (8, 0)):
        assert read_offline_run(records["ablate_kernel_5", 1, scenes]["folder"])["exit_code"] == wandb_code
    assert "Traceback" in Path(records["ablate_kernel_3", 1, 2]["folder"], "log.txt").read_text()


def test_an_experiment_may_bring_its_own_sweep():
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["experiment=range_factor"], return_hydra_config=True)
    factors = cfg.hydra.sweeper.params["offset_range.factor"].split(",")
    assert len(factors) == 14
    for factor in factors:
        cfg = load_config("experiment=range_factor", f"offset_range.factor={factor}")
        assert cfg["name"] == f"range_factor_{factor}"
        assert cfg["model"]["attention"]["deformable"]["offset_range"]["factor"] == int(factor)


@pytest.mark.parametrize(
    ("override", "code", "says"),
    [
        ("model.stages.three.offset_groups=3", 2, "stage three: offset_groups 3 doesn't divide num_heads 4"),
        ("trainer.accelerator=mps", 2, "`MPSAccelerator` can not run"),  # Lightning's word, when the run has begun
        ("experiment=nonsense", 1, "Could not find 'experiment/nonsense'"),
    ],
)
def test_what_the_user_can_put_right_is_said_without_a_traceback(override, code, says, tmp_path):
    found, out, err = run(*TINY, "logger=csv", f"runs={tmp_path}", override, home=tmp_path)
    assert found == code
    assert "Traceback" not in out + err
    if code == 2:
        assert sum(says in line for line in (out + err).splitlines()) == 1
        assert out.splitlines()[-1].startswith(says)
    else:
        assert says in err and not list(find_records(tmp_path))


def test_a_run_that_is_stopped_three_ways_ends_as_if_nothing_had_happened(tmp_path):
    """Ctrl-C, the scheduler's SIGTERM, then SIGKILL, which leaves no time to say anything."""
    settings = (*TINY, "recipe.epochs=24", "model.drop_path_rate=0.2", OFFLINE)
    command = (*settings, f"runs={tmp_path / 'stopped'}")
    stops = ((signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL))
    for attempt, (stop, code) in enumerate(stops, start=1):
        process = start(*command, home=tmp_path)
        until(process, f"epoch {4 * attempt}/24")
        process.send_signal(stop)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code
        assert not left_behind(process)
        assert "Traceback" not in err
        (record,) = find_records(tmp_path / "stopped")
        assert record["status"] == "interrupted"
        assert len(record["attempts"]) == attempt
        if stop == signal.SIGINT:
            assert read_offline_run(record["folder"])["exit_code"] == 255

    code, _, err = run(*command, home=tmp_path)
    assert code == 0, err
    (record,) = find_records(tmp_path / "stopped")
    assert [attempt["status"] for attempt in record["attempts"]] == [*["interrupted"] * 3, "finished"]
    assert [attempt["resume_from"] for attempt in record["attempts"]] == [None, *["checkpoints/last.ckpt"] * 3]
    last = Path(record["folder"], "curves", "attempt-4", "metrics.csv").read_text().splitlines()
    assert min(int(row["epoch"]) for row in csv.DictReader(last) if row["epoch"]) >= 10  # not from the beginning

    metrics = training.train(load_config(*settings, f"runs={tmp_path / 'whole'}"))
    for key in ("val/acc1", "best_epoch", "test/acc1", "test/loss", "test/acc1_per_class", "epochs"):
        assert record["metrics"][key] == metrics[key]
