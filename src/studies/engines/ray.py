"""Jobs on a Ray cluster: one started on this machine for the study, or one that is there already."""

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from src.studies.engines.base import STARTED, Engine, Report
from src.studies.states import state_of
from src.studies.supervise import Limits, supervise
from src.studies.table import Job, Table

POLL = 0.5  # seconds between two looks at the cluster
LOOK_AGAIN = 5.0  # seconds until a job that is computed elsewhere, or whose machine died, is tried again
STOPPED_WITHIN = 120.0  # seconds that the jobs have for ending in order


class Ray(Engine):
    """One task per job; Ray chooses the machine. All machines see the run folders and this project.

    A worker or a machine that dies loses its job's last epoch; the job is started again elsewhere.

    Args:
        address: of a cluster, such as "auto" or "ray://head:10001"; None starts one here, with room for `workers`.
        cpus, gpus: of each job, as Ray counts them. Jobs of several GPUs have them on one machine.
    """

    def __init__(
        self,
        *,
        workers: int | str,
        address: str | None,
        cpus: float,
        gpus: float,
        retries: int,
        silence: float,
        time_limit: float | None,
    ):
        super().__init__(workers=workers, retries=retries, silence=silence, time_limit=time_limit)
        if cpus <= 0 or gpus < 0:
            raise ValueError(f"engine.cpus is {cpus}, engine.gpus {gpus}; a job needs some CPU")
        self.address, self.cpus, self.gpus = address, cpus, gpus

    def side_by_side(self, table: Table, jobs: int) -> int:
        self._connect()
        import ray

        there = ray.cluster_resources()
        fit = int(there.get("CPU", 0) / self.cpus)
        if self.gpus:
            fit = min(fit, int(there.get("GPU", 0) / self.gpus))
        if not fit:
            raise ValueError(
                f"the Ray cluster has no room for engine.cpus={self.cpus:g} and engine.gpus={self.gpus:g}: it "
                f"has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
            )
        return max(1, min(fit if self.workers == "auto" else int(self.workers), fit, jobs or 1))

    def devices(self, table: Table) -> int:
        return max(1, int(self.gpus))

    def threads_of_a_job(self, table: Table) -> int | None:
        return max(1, int(self.cpus))

    def run(self, table: Table, jobs: Sequence[Job], report: Report, stop: threading.Event) -> None:
        if not jobs:
            return
        self._connect()
        import ray

        task = ray.remote(_task).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, runtime_env={"env_vars": self._environment()}
        )
        at_once = self.side_by_side(table, len(jobs))
        waiting, running = deque((0.0, job) for job in jobs), dict[Any, Job]()
        lost = dict.fromkeys(jobs, 0)
        try:
            while (waiting or running) and not stop.is_set():
                due = [at for at in waiting if at[0] <= time.monotonic()]
                for at in due[: at_once - len(running)]:
                    waiting.remove(at)
                    job = at[1]
                    if state_of(table, job).status == "finished":
                        report(job, "finished")
                        continue
                    report(job, STARTED)
                    running[task.remote(table, job, self.limits)] = job
                if not running:
                    stop.wait(POLL)
                    continue
                for handle in ray.wait(list(running), timeout=POLL)[0]:
                    job = running.pop(handle)
                    status = self._result(handle)
                    lost[job] += status == "lost"
                    if status == "elsewhere" or (status == "lost" and lost[job] <= self.limits.retries):
                        waiting.append((time.monotonic() + LOOK_AGAIN, job))  # what it had is in its folder
                        continue
                    report(job, status)
        finally:
            for handle in running:
                ray.cancel(handle)  # a KeyboardInterrupt in its task
            ray.wait(list(running), num_returns=len(running), timeout=STOPPED_WITHIN) if running else None
            for job in running.values():
                report(job, state_of(table, job).status)
            if self.address is None:
                ray.shutdown()

    def _result(self, handle: Any) -> str:
        """How `supervise` says that the job ended; "lost" if its machine or worker died."""
        import ray

        try:
            status: str = ray.get(handle)
        except (ray.exceptions.RayError, KeyboardInterrupt):
            return "lost"
        return status

    def _connect(self) -> None:
        try:
            import ray
        except ModuleNotFoundError:
            raise ValueError("engine=ray needs ray: pip install ray") from None
        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or it tells its makers
        own = self.address is None
        ray.init(
            # Without an address Ray would join any cluster that it finds here, such as another study's.
            address="local" if own else self.address,
            num_cpus=math.ceil(int(self.workers) * self.cpus) if own and self.workers != "auto" else None,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )

    def _environment(self) -> dict[str, str]:
        """Of the task's worker, so that it finds this project and its jobs keep to their share of the cores."""
        threads = str(max(1, int(self.cpus)))
        return {"PYTHONPATH": os.pathsep.join(_paths()), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


def _task(table: Table, job: Job, limits: Limits) -> str:
    """Runs on a machine of the cluster; what it finds in its environment, GPUs included, is Ray's doing."""
    stop = threading.Event()
    try:
        return supervise(table, job, limits, env={}, stop=stop)
    except KeyboardInterrupt:  # cancelled; `supervise` has ended its job on the way
        return "interrupted"


def _paths() -> list[str]:
    from src.studies.snapshot import ROOT

    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return [str(ROOT), *given]
