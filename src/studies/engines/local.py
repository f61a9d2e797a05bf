"""Jobs on this machine, each in processes of its own, on its own GPUs or cores."""

import os
import queue
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

from src.runs.provenance import hardware
from src.studies.engines.base import STARTED, Engine, Report
from src.studies.states import state_of
from src.studies.supervise import supervise
from src.studies.table import Job, Table

LOOK_AGAIN = 5.0  # seconds until a job that another runner computes is looked at again


class Local(Engine):
    """Any number of workers; without GPUs one per core, each bounded to its share of the threads.

    Two jobs whose threads share cores wait for each other spinning: they are many times slower than one after the
    other (`experiments/workers/`).

    Args:
        threads: of each job; "auto" shares the cores out.
        gpus: their numbers, or "auto" for all that can be seen.
        jobs_per_gpu: packed on one. Their kernels run at the same time under NVIDIA's MPS alone
            (`nvidia-cuda-mps-control -d`, before the study); without it they take turns.
    """

    def __init__(
        self,
        *,
        workers: int | str,
        threads: int | str,
        gpus: Sequence[int] | str,
        jobs_per_gpu: int,
        retries: int,
        silence: float,
        time_limit: float | None,
    ):
        super().__init__(workers=workers, retries=retries, silence=silence, time_limit=time_limit)
        if threads != "auto" and not (type(threads) is int and threads >= 1):
            raise ValueError(f"engine.threads is {threads!r}; it must be a number from 1, or auto")
        if jobs_per_gpu < 1:
            raise ValueError(f"engine.jobs_per_gpu is {jobs_per_gpu}; it must be 1 or more")
        self.threads, self.gpus, self.jobs_per_gpu = threads, gpus, jobs_per_gpu

    def side_by_side(self, table: Table, jobs: int) -> int:
        return len(self.slots(table, jobs))

    def devices(self, table: Table) -> int:
        return _gpus_of_a_job(table) if self._gpus(table) else 1

    def threads_of_a_job(self, table: Table) -> int:
        return int(self.slots(table, len(table.jobs))[0]["OMP_NUM_THREADS"])

    def memory_of_a_job(self, table: Table, workers: int) -> float | None:
        there = hardware()
        if self._gpus(table):
            smallest = min((gpu["memory_gib"] or 0.0 for gpu in there["gpus"]), default=0.0)
            return smallest * 2**30 / 1e6 / self.jobs_per_gpu or None
        return there["memory_gib"] and there["memory_gib"] * 2**30 / 1e6 / workers

    def probe_slots(self, table: Table, workers: int) -> list[dict[str, str]]:
        return self.slots(table, workers)

    def slots(self, table: Table, jobs: int) -> list[dict[str, str]]:
        """For each worker what its jobs find in their environment.

        Raises:
            ValueError: a job wants more GPUs than there are.
        """
        gpus, cores = self._gpus(table), usable_cores()
        if gpus:
            each = _gpus_of_a_job(table)
            groups = [gpus[i : i + each] for i in range(0, len(gpus) - each + 1, each)]
            if not groups:
                raise ValueError(f"a job wants {each} GPUs, and there are {len(gpus)}; lower trainer.devices")
            most = len(groups) * self.jobs_per_gpu
            workers = min(most if self.workers == "auto" else int(self.workers), max(jobs, 1))
            places = [{"CUDA_VISIBLE_DEVICES": ",".join(groups[i % len(groups)])} for i in range(workers)]
        else:
            workers = min(cores if self.workers == "auto" else int(self.workers), max(jobs, 1))
            places = [{} for _ in range(workers)]
        threads = str(max(1, cores // workers) if self.threads == "auto" else self.threads)
        return [{**place, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads} for place in places]

    def run(self, table: Table, jobs: Sequence[Job], report: Report, stop: threading.Event) -> None:
        waiting: queue.Queue[Job] = queue.Queue()
        for job in jobs:
            waiting.put(job)
        slots = self.slots(table, len(jobs))
        workers = [
            threading.Thread(target=self._work, args=(table, waiting, slot, report, stop), name=f"worker {number}")
            for number, slot in enumerate(slots)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            while worker.is_alive():  # a bare join would keep Ctrl-C waiting
                worker.join(0.2)

    def _work(
        self,
        table: Table,
        waiting: queue.Queue[Job],
        slot: Mapping[str, str],
        report: Report,
        stop: threading.Event,
    ) -> None:
        postponed: dict[Job, float] = {}
        while not stop.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            if postponed.get(job, 0.0) > time.monotonic():  # all that is left is computed elsewhere
                waiting.put(job)
                stop.wait(0.2)
                continue
            status = state_of(table, job).status
            if status != "finished":
                if status != "running":
                    report(job, STARTED)
                    status = supervise(table, job, self.limits, env=slot, stop=stop)
                if status in ("running", "elsewhere"):
                    postponed[job] = time.monotonic() + LOOK_AGAIN
                    waiting.put(job)
                    continue
            report(job, status)

    def _gpus(self, table: Table) -> list[str]:
        if _trainer(table).get("accelerator") == "cpu":
            return []
        return visible_gpus() if self.gpus == "auto" else [str(gpu) for gpu in self.gpus]


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """Numbers of the GPUs that a job would see; found without torch, which takes seconds to import."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return [gpu for gpu in said.split(",") if gpu.strip() not in ("", "-1")]
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return listed.split()


def _trainer(table: Table) -> Mapping[str, object]:
    trainer: Mapping[str, object] = next(iter(table.variants.values())).config["trainer"]
    return trainer


def _gpus_of_a_job(table: Table) -> int:
    """Those of the row that wants most."""
    wanted = [variant.config["trainer"]["devices"] for variant in table.variants.values()]
    return max(n if isinstance(n, int) and n > 0 else len(visible_gpus()) or 1 for n in wanted)
