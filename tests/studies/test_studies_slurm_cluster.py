"""What SLURM does to a job, as far as a study that only has squeue and the jobs' own files relies on it."""

import importlib.util
import os
import signal
import subprocess
import time
from pathlib import Path
from unittest import mock

import pytest
from slurm_cluster import Cluster, available, eventually

pytestmark = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="needs submitit (pip install submitit)"),
]


class Job:
    """Writes down its start and every signal; it ends by itself, or on SIGTERM if `obeys`."""

    def __init__(self, log, seconds, obeys=True):
        self.log, self.seconds, self.obeys = Path(log), seconds, obeys

    def __call__(self):
        restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
        with self.log.open("a", buffering=1) as log:
            print(f"started {restarts}", file=log)
            ended = []

            def note(number, frame):
                print(signal.Signals(number).name, file=log)
                ended.extend([True] if self.obeys and number == signal.SIGTERM else [])

            for number in (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR2):
                signal.signal(number, note)
            start = time.time()
            while not ended and time.time() < start + self.seconds:
                time.sleep(0.02)
            return start, time.time()


@pytest.fixture
def cluster(tmp_path):
    # One for each test: to start it takes a second, to see the jobs of another test off would take four.
    with Cluster(tmp_path / "slurm") as cluster, mock.patch.dict(os.environ, cluster.env):
        yield cluster


def executor(folder, **parameters):
    import submitit

    executor = submitit.AutoExecutor(folder / "submitit", cluster="slurm")
    # What is pickled is only a name: the jobs have to find this file.
    path = f"export PYTHONPATH={Path(__file__).parent}"
    executor.update_parameters(timeout_min=30, slurm_setup=[path], **parameters)
    return executor


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def begun(path, restarts=0):
    eventually(lambda: f"started {restarts}" in lines(path))


def test_two_jobs_at_once(cluster, tmp_path):
    jobs = [executor(tmp_path).submit(Job(tmp_path / f"{i}", 1.5)) for i in range(2)]
    (start, end), (other_start, other_end) = (job.result() for job in jobs)
    assert max(start, other_start) < min(end, other_end), "one waited for the other"
    assert all(job.done() and job.state == "UNKNOWN" for job in jobs), "states come from sacct, which there is not"


def test_an_array_with_a_limit_of_one(cluster, tmp_path):
    tasks = executor(tmp_path, slurm_array_parallelism=1).map_array(lambda i: Job(tmp_path / f"{i}", 0.3)(), range(2))
    number = tasks[0].job_id.partition("_")[0]
    assert [task.job_id for task in tasks] == [f"{number}_0", f"{number}_1"]
    assert cluster.run("squeue", "--noheader", "--format=%i").strip() == f"{number}_[0-1%1]", "folded without --array"
    begun(tmp_path / "0")
    assert cluster.squeue() == [f"{number}_0 RUNNING None", f"{number}_1 PENDING JobArrayTaskLimit"]
    (_, first_end), (second_start, _) = (task.result() for task in tasks)
    assert first_end <= second_start


def test_scancel(cluster, tmp_path):
    job = executor(tmp_path).submit(Job(tmp_path / "log", 60, obeys=False))
    begun(tmp_path / "log")
    job.cancel()
    eventually(lambda: cluster.squeue("%T") == ["COMPLETING"], within=3)
    eventually(lambda: not cluster.squeue())
    assert sorted(lines(tmp_path / "log")[1:]) == ["SIGCONT", "SIGTERM"]
    assert not job.done() and not job.paths.result_pickle.exists(), "submitit never learns of it"
    [state] = cluster.squeue("%T", "--states=all", f"--jobs={job.job_id}")
    assert state == "CANCELLED", "SLURM remembers for MinJobAge seconds"


def test_drain_lets_a_job_end_and_starts_no_other(cluster, tmp_path):
    job = executor(tmp_path).submit(Job(tmp_path / "log", 1.5))
    begun(tmp_path / "log")
    cluster.drain()
    assert cluster.node_state() == "draining"
    waiting = executor(tmp_path).submit(Job(tmp_path / "waiting", 0))
    job.result()
    eventually(lambda: cluster.node_state() == "drained")
    time.sleep(1.5)  # the scheduler has had its chance
    assert cluster.squeue("%i %T") == [f"{waiting.job_id} PENDING"] and lines(tmp_path / "log") == ["started 0"]
    cluster.resume()
    waiting.result()


def test_down_requeues(cluster, tmp_path):
    job = executor(tmp_path).submit(Job(tmp_path / "log", 60))
    begun(tmp_path / "log")
    cluster.down()
    assert cluster.node_state() == "down"
    assert cluster.squeue("%i %T") == [f"{job.job_id} PENDING"]
    assert sorted(lines(tmp_path / "log")[1:]) == ["SIGCONT", "SIGTERM"]
    cluster.resume()
    begun(tmp_path / "log", restarts=1)
    assert cluster.squeue("%i %T") == [f"{job.job_id} RUNNING"], "the same number"


def test_requeued_and_held(cluster, tmp_path):
    job = executor(tmp_path).submit(Job(tmp_path / "log", 60))
    begun(tmp_path / "log")
    cluster.scontrol("requeuehold", job.job_id)
    held = f"{job.job_id} PENDING job requeued in held state"
    eventually(lambda: cluster.squeue() == [held])


def test_usr2_reaches_the_step(cluster, tmp_path):
    job = executor(tmp_path).submit(Job(tmp_path / "log", 60))
    begun(tmp_path / "log")
    cluster.run("scancel", "--signal=USR2", job.job_id)
    eventually(lambda: "SIGUSR2" in lines(tmp_path / "log"))
    assert cluster.squeue("%T") in (["RUNNING"], ["SIGNALING"]), "a signal ends nothing by itself"


def test_without_controller_nothing_is_known_and_jobs_run_on(cluster, tmp_path):
    job = executor(tmp_path).submit(Job(tmp_path / "log", 60))
    begun(tmp_path / "log")
    cluster.stop_controller()
    with pytest.raises(subprocess.CalledProcessError) as failed:
        cluster.squeue()
    assert "Unable to contact slurm controller" in failed.value.stderr
    cluster.start_controller()
    assert cluster.squeue() == [f"{job.job_id} RUNNING None"] and lines(tmp_path / "log") == ["started 0"]


def test_leaves_no_process_behind_when_a_test_fails(cluster, tmp_path):
    with pytest.raises(ZeroDivisionError), Cluster(tmp_path / "other") as other:
        other.run("sbatch", f"--chdir={tmp_path}", "--wrap=trap '' TERM; touch begun; sleep 60")
        eventually((tmp_path / "begun").exists)
        assert len(other.processes()) >= 6, "three daemons, the step, the shell, sleep"
        raise ZeroDivisionError
    assert other.processes() == [] and cluster.node_state() == "idle", "the other cluster is left alone"
