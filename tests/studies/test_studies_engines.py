"""Studies on Ray and on SLURM, and jobs of several processes, all for real: what dies is done again, nothing twice."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from slurm_cluster import Cluster, available
from study_tools import ROOT, TINY, by_state, environment, faulty, processes, start, study, until, write_study

from src.runs.record import find_records, read_progress, read_record

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
missing = available() or (None if importlib.util.find_spec("submitit") else "needs submitit (pip install submitit)")
with_slurm = pytest.mark.skipif(missing is not None, reason=str(missing))
with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray (pip install ray)")

QUEUE = ("engine=slurm", "engine.poll=1", "engine.cpus=1", "engine.gpus=0", "engine.minutes=30")
TWO_DEVICES = ("trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu")


ROWS = {"one": (), "two": ("offset=zero",)}


class SlowStudy:
    """Its jobs, named as in one/0, take over a minute from their third epoch on, until `hurry`."""

    def __init__(self, folder, *, seeds, rows=ROWS):
        self.jobs = [f"{name}/{seed}" for name in rows for seed in range(seeds)]
        self.runs, self.fault = folder / "runs", folder / "faults" / "slow"
        self.fault.parent.mkdir()
        self.fault.touch()
        overrides = (*TINY, *faulty(self.fault.parent), "+data.fault=slow", "recipe.epochs=120")
        self.folder = write_study(folder / "s", rows, seeds=seeds, overrides=overrides)

    def command(self, *options):
        return "run", self.folder, f"runs={self.runs}", "engine.workers=2", *options

    def hurry(self):
        self.fault.unlink()

    def states(self):
        return by_state(self.folder, self.runs)

    def record(self, job):
        name, _, seed = job.partition("/")
        found = [record for path in self.runs.glob(f"s/{name}/seed{seed}-*") if (record := read_record(path))]
        return found[0] if found else None

    def attempts(self, job):
        return [attempt["status"] for attempt in self.record(job)["attempts"]]

    def resumed(self, job):
        """Whether its last attempt went on; from `previous.ckpt` if the one before was stopped while it saved."""
        return self.record(job)["attempts"][-1]["resume_from"] is not None

    def process(self, job):
        return self.record(job)["attempts"][-1]["pid"]

    def trains(self, job, attempt=None):
        """Whether `job`, in this attempt or in any, has something to lose."""
        record = self.record(job)
        if record is None or record["status"] != "running" or attempt not in (None, len(record["attempts"])):
            return False
        progress = read_progress(record["folder"])
        return bool(progress) and progress["time"] > record["attempts"][-1]["start"] and progress["epoch"] >= 3

    def until_training(self, runner, *jobs, attempt=1):
        def all_train():
            if runner.poll() is not None:
                pytest.fail(runner.communicate()[0])
            return all(self.trains(job, attempt) for job in jobs)

        until(all_train, f"attempt {attempt} of {' and '.join(jobs)} trains")


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def with_variable(variable):
    """Living processes that were started with `variable` (KEY=value) in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if variable.encode() in path.read_bytes().split(b"\0"):
                found.append(path.with_name("cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has just ended
            continue
    return found


# ----------------------------------------------------------------------------------------------- Ray


@with_ray
def test_ray_loses_a_job_and_a_worker_and_is_stopped(tmp_path):
    slow = SlowStudy(tmp_path, seeds=2)
    runner = start(*slow.command("engine=ray"), env={"MARK": str(tmp_path)})
    slow.until_training(runner, "one/0", "two/0")
    assert slow.record("one/1") is None, "two at a time"

    os.kill(slow.process("one/0"), signal.SIGKILL)
    os.kill(parent(slow.process("two/0")), signal.SIGKILL)  # Ray's worker
    slow.until_training(runner, "one/0", attempt=2)
    slow.until_training(runner, "one/1")  # in the place of the one without a worker
    assert slow.states() == {"one/0": "running", "two/0": "interrupted", "one/1": "running", "two/1": "waiting"}

    os.killpg(runner.pid, signal.SIGINT)  # as a terminal does
    out, _ = runner.communicate(timeout=90)
    assert runner.returncode == 130 and "stopped" in out, out
    until(lambda: with_variable(f"MARK={tmp_path}") == [], "nothing of Ray is left", timeout=15)
    assert slow.states() == {
        "one/0": "interrupted",
        "two/0": "interrupted",
        "one/1": "interrupted",
        "two/1": "waiting",
    }

    slow.hurry()
    code, out = study(*slow.command("engine=ray"))
    assert code == 0, out
    assert slow.attempts("one/0") == ["failed", "interrupted", "finished"]
    assert slow.attempts("two/0") == slow.attempts("one/1") == ["interrupted", "finished"]
    assert slow.attempts("two/1") == ["finished"]
    for job in ("one/0", "two/0", "one/1"):
        assert slow.resumed(job)


# --------------------------------------------------------------------------------------------- SLURM


@pytest.fixture
def cluster(tmp_path):
    with Cluster(tmp_path / "slurm") as cluster:
        yield cluster


def number(runs, job):
    """Of the SLURM job that has `job`."""
    name, _, seed = job.partition("/")
    (path,) = runs.glob(f"s/.tables/*/slurm/{name}-seed{seed}.json")
    return json.loads(path.read_text())["id"]


@with_slurm
def test_slurm_cancels_one_warns_one_and_drains(cluster, tmp_path):
    slow = SlowStudy(tmp_path, seeds=2)
    runner = start(*slow.command(*QUEUE), env=cluster.env)
    slow.until_training(runner, "one/0", "two/0")
    assert sorted(cluster.squeue("%T")) == ["PENDING", "PENDING", "RUNNING", "RUNNING"]

    cancelled, warned, held = (number(slow.runs, job) for job in ("one/0", "two/0", "two/1"))
    cluster.scontrol("hold", held)
    cluster.run("scancel", cancelled)
    os.kill(slow.process("two/0"), signal.SIGUSR2)  # where jobs are tracked by cgroups, the warning reaches all of it
    with suppress(subprocess.CalledProcessError):  # scancel doesn't return while the job it has told is queued again
        cluster.run("timeout", "3", "scancel", "--signal=USR2", warned)
    until(lambda: number(slow.runs, "one/0") != cancelled, "submitted again")
    cluster.scontrol("release", held)
    until(lambda: sum(map(slow.trains, slow.jobs)) == 2, "two train in their places")
    assert number(slow.runs, "two/0") == warned and "Restarts=1" in cluster.scontrol("show", "job", warned)

    training = {job for job in slow.jobs if slow.trains(job)}
    cluster.drain()
    slow.hurry()
    until(lambda: cluster.squeue("%T") == ["PENDING", "PENDING"], "what ran has finished, nothing has started")
    states = slow.states()
    assert {job for job, state in states.items() if state == "finished"} == training
    assert not {job for job, state in states.items() if state in ("running", "failed")}
    cluster.resume()
    out, _ = runner.communicate(timeout=120)
    assert runner.returncode == 0, out
    assert f"two/seed1 is held (JobHeldAdmin): scontrol release {held}" in out, "root is an admin"
    assert set(slow.states().values()) == {"finished"}
    assert slow.attempts("one/0") == slow.attempts("two/0") == ["interrupted", "finished"]
    assert slow.attempts("one/1") == slow.attempts("two/1") == ["finished"]
    for job in ("one/0", "two/0"):
        assert slow.resumed(job)
    assert slow.record("two/0")["attempts"][0]["end"] is not None, "ended in order, with all that it had"


@with_slurm
def test_slurm_goes_on_without_a_runner_and_after_its_node_failed(cluster, tmp_path):
    slow = SlowStudy(tmp_path, seeds=1)
    _, out = study(*slow.command(*QUEUE, "--detach"), env=cluster.env)
    assert "submitted" in out
    numbers = [number(slow.runs, job) for job in ("one/0", "two/0")]
    follower = start(*slow.command(*QUEUE), env=cluster.env)
    slow.until_training(follower, "one/0", "two/0")
    assert cluster.squeue("%i %T") == [f"{number} RUNNING" for number in numbers], "submitted twice"

    follower.kill()
    follower.communicate()
    cluster.down()
    until(lambda: not processes(tmp_path), "the jobs have ended", timeout=30)
    assert slow.states() == {"one/0": "interrupted", "two/0": "interrupted"}
    cluster.resume()
    follower = start(*slow.command(*QUEUE), env=cluster.env)
    slow.until_training(follower, "one/0", "two/0", attempt=2)
    assert cluster.squeue("%i %T") == [f"{number} RUNNING" for number in numbers], "requeued, and not submitted twice"

    os.killpg(follower.pid, signal.SIGINT)
    out, _ = follower.communicate(timeout=60)
    assert follower.returncode == 130 and "stopped" in out, out
    assert cluster.squeue() == []
    until(lambda: not processes(tmp_path), "the jobs have ended", timeout=30)
    assert slow.states() == {"one/0": "interrupted", "two/0": "interrupted"}

    slow.hurry()
    code, out = study(*slow.command(*QUEUE), env=cluster.env)
    assert code == 0, out
    assert slow.attempts("one/0") == slow.attempts("two/0") == ["interrupted", "interrupted", "finished"]


# ------------------------------------------------------------------------------- jobs of two processes


def assert_one_whole_record(runs, attempts):
    (record,) = find_records(runs)
    assert [attempt["status"] for attempt in record["attempts"]] == attempts
    predictions = np.load(Path(record["folder"]) / "predictions.npz")
    assert len(predictions["label"]) == len(predictions["predicted"]) == record["config"]["data"]["test_scenes"]


def test_a_study_of_jobs_of_two_processes(tmp_path):
    folder, runs = write_study(tmp_path / "s", {"pair": TWO_DEVICES}, overrides=TINY), tmp_path / "runs"
    code, out = study("run", folder, f"runs={runs}")
    assert code == 0, out
    assert_one_whole_record(runs, ["finished"])


@with_slurm
def test_a_slurm_job_of_two_tasks_loses_one_and_is_done_again(cluster, tmp_path):
    slow = SlowStudy(tmp_path, seeds=1, rows={"pair": TWO_DEVICES})
    # The node has a name that only SLURM knows, and by which rank one would look for rank zero.
    runner = start(*slow.command(*QUEUE), env={**cluster.env, "MASTER_ADDR": "127.0.0.1"})
    slow.until_training(runner, "pair/0")
    (other,) = set(processes(tmp_path)) - {slow.process("pair/0")}
    os.kill(other, signal.SIGKILL)
    slow.hurry()
    out, _ = runner.communicate(timeout=200)
    assert runner.returncode == 0, out
    assert_one_whole_record(slow.runs, ["failed", "finished"])


def test_torchrun(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "src.train"]
    command += [*TINY, *TWO_DEVICES, "progress=lines", f"runs={tmp_path / 'runs'}", f"hydra.run.dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_one_whole_record(tmp_path / "runs", ["finished"])
