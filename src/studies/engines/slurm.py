"""Jobs on a SLURM cluster whose machines share the run folders.

Submitted by submitit as arrays, and followed by what `squeue` and the run folders say: many clusters keep no accounts
that could be asked what became of a job.
"""

import json
import logging
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from src.runs.process import LOST_AFTER
from src.runs.record import write_json
from src.studies.engines.base import STARTED, Engine, Report
from src.studies.snapshot import environment
from src.studies.states import state_of
from src.studies.supervise import Limits, supervise
from src.studies.table import Job, Table

log = logging.getLogger(__name__)

ASK_AGAIN = 20.0  # seconds until a job that seems to run elsewhere is tried again
SETTLE = 2  # polls for which a job must be gone: shared disks show its record a little late
CANCELLED_WITHIN = 120.0  # seconds that cancelled jobs have for ending in order


class Slurm(Engine):
    """One SLURM job per job, in arrays of which `workers` run at once.

    Before its time is over a job saves what it has and queues itself again; so does SLURM itself where a machine fails
    or somebody with more right takes it. A cancelled job is submitted again as long as `retries` allow, by whoever
    follows the study.

    Args:
        partition, account, qos, constraint: where; None is the cluster's default.
        minutes: of one SLURM job; it goes on in the next.
        warning: seconds before that at which it is told.
        cpus, gpus, memory_gb: of each job; a job of several devices or nodes has as many tasks, each with these.
        setup: shell lines before it starts, such as `module load cuda`.
        additional: any of sbatch's long options by name.
        poll: seconds between two looks at the queue.
    """

    def __init__(
        self,
        *,
        workers: int | str,
        partition: str | None,
        account: str | None,
        qos: str | None,
        constraint: str | None,
        minutes: int,
        warning: int,
        cpus: int,
        gpus: int,
        memory_gb: float | None,
        setup: Sequence[str],
        additional: Mapping[str, Any],
        poll: float,
        retries: int,
        silence: float,
        time_limit: float | None,
    ):
        super().__init__(workers=workers, retries=retries, silence=silence, time_limit=time_limit)
        if minutes < 1 or cpus < 1 or gpus < 0 or poll <= 0:
            raise ValueError(
                f"engine.minutes is {minutes}, engine.cpus {cpus}, engine.gpus {gpus}, engine.poll {poll}; they must "
                f"be at least 1, 1 and 0, and above 0"
            )
        if not 0 < warning < 60 * minutes:
            raise ValueError(f"engine.warning is {warning} s; it must be above 0 and below engine.minutes={minutes}")
        self.minutes, self.warning, self.cpus, self.gpus, self.poll = minutes, warning, cpus, gpus, poll
        self.options: dict[str, Any] = {
            "slurm_partition": partition,
            "slurm_account": account,
            "slurm_qos": qos,
            "slurm_constraint": constraint,
            "mem_gb": memory_gb,
        }
        self.setup = list(setup)
        # `requeue`, or a cluster may be set to lose what a failing machine ran.
        self.additional = {"requeue": True, **additional}

    def side_by_side(self, table: Table, jobs: int) -> int:
        """As many as asked for, or all: how many really run at once is the queue's affair."""
        return max(1, min(jobs, jobs if self.workers == "auto" else int(self.workers)))

    def devices(self, table: Table) -> int:
        nodes, tasks = _shape(table)
        return nodes * tasks * max(1, self.gpus)

    def threads_of_a_job(self, table: Table) -> int | None:
        return self.cpus

    def detach(self) -> None:
        self.detached = True

    def run(self, table: Table, jobs: Sequence[Job], report: Report, stop: threading.Event) -> None:
        there = _Queue(table)
        queued = there.living(jobs)
        if queued is None:
            raise ValueError("SLURM doesn't answer, so what it already has isn't known; try again later")
        fresh = [job for job in jobs if job not in queued]
        finished = [job for job in fresh if state_of(table, job).status == "finished"]
        for job in finished:
            report(job, "finished")
        self._submit(table, [job for job in fresh if job not in finished], there, report)
        for job in [job for job in jobs if job in queued]:
            report(job, STARTED)
        if self.detached:
            log.info("submitted; the jobs run without this command, and the same command without --detach follows them")
            return
        self._follow(table, [job for job in jobs if job not in finished], there, report, stop)

    def _follow(
        self, table: Table, jobs: Sequence[Job], there: "_Queue", report: Report, stop: threading.Event
    ) -> None:
        following, gone = set(jobs), dict.fromkeys(jobs, 0)
        submissions = dict.fromkeys(jobs, 1)
        ends = {"finished", "diverged"} | ({"failed"} if _is_one_process(table) else set())
        while following and not stop.wait(self.poll):
            living = there.living(following)
            if living is None:
                continue  # the controller doesn't answer: nothing is known, and the jobs run on
            again = []
            for job in [job for job in jobs if job in following]:
                gone[job] = 0 if job in living else gone[job] + 1
                status = state_of(table, job).status
                if gone[job] < SETTLE or status == "running":
                    continue
                if status not in ends and submissions[job] <= self.limits.retries:
                    again.append(job)
                    continue
                following.discard(job)
                report(job, status)
            for job in again:
                submissions[job] += 1
                gone[job] = 0
            self._submit(table, again, there, report)
        if stop.is_set() and following:
            there.cancel(following)
            until = time.monotonic() + CANCELLED_WITHIN
            while there.living(following) != set() and time.monotonic() < until:
                time.sleep(min(1.0, self.poll))
            for job in following:
                report(job, state_of(table, job).status)

    def _submit(self, table: Table, jobs: Sequence[Job], there: "_Queue", report: Report) -> None:
        if not jobs:
            return
        try:
            import submitit
        except ModuleNotFoundError:
            raise ValueError("engine=slurm needs submitit: pip install submitit") from None
        nodes, tasks = _shape(table)
        options = {key: value for key, value in self.options.items() if value}
        try:
            executor = submitit.AutoExecutor(folder=there.folder, cluster="slurm")
            executor.update_parameters(
                name=table.study,
                timeout_min=self.minutes,
                nodes=nodes,
                tasks_per_node=tasks,
                cpus_per_task=self.cpus,
                slurm_gpus_per_node=self.gpus * tasks or None,
                slurm_array_parallelism=self.side_by_side(table, len(jobs)),
                slurm_signal_delay_s=self.warning,
                slurm_setup=[*self.setup, *_exports(table)],
                # SLURM 22.05 to 23.02 would otherwise give the step one core.
                slurm_srun_args=[f"--cpus-per-task={self.cpus}"],
                slurm_additional_parameters=self.additional,
                **options,
            )
            # A process can be started again where it is; several only all together, by another SLURM job.
            retries = self.limits.retries if _is_one_process(table) else 0
            limits = replace(self.limits, retries=retries)
            handed = executor.submit_array([SlurmJob(table, job, limits, self.cpus) for job in jobs])
        except (RuntimeError, OSError) as error:
            raise ValueError(f"SLURM takes no jobs: {' '.join(str(error).split())}") from None
        for job, submitted in zip(jobs, handed, strict=True):
            there.remember(job, submitted.job_id)
            report(job, STARTED)


class SlurmJob:
    """What runs on the cluster's machine: a job under supervision, that ends in order when it is told to."""

    def __init__(self, table: Table, job: Job, limits: Limits, cpus: int):
        self.table, self.job, self.limits, self.cpus = table, job, limits, cpus

    def __call__(self) -> str:
        stop, out_of_time = threading.Event(), threading.Event()

        def warned(signum: int, frame: Any) -> None:
            out_of_time.set()
            stop.set()

        # submitit's own handlers, which these replace, swallow SIGTERM and count time-outs in their way.
        signal.signal(signal.SIGTERM, lambda signum, frame: stop.set())
        signal.signal(signal.SIGUSR2, warned)
        threads = {"OMP_NUM_THREADS": str(self.cpus), "MKL_NUM_THREADS": str(self.cpus)}
        status = supervise(self.table, self.job, self.limits, env=threads, stop=stop)
        # The machine that had it may have died so recently that it still looks alive from here.
        until = time.monotonic() + 2 * LOST_AFTER
        while status == "elsewhere" and time.monotonic() < until and not stop.wait(ASK_AGAIN):
            status = supervise(self.table, self.job, self.limits, env=threads, stop=stop)
        if (
            out_of_time.is_set()
            and status in ("interrupted", "elsewhere")
            and os.environ.get("SLURM_PROCID", "0") == "0"
        ):
            subprocess.run(["scontrol", "requeue", _own_id()], check=True)
        return status


class _Queue:
    """Which of a study's jobs SLURM has; their numbers lie beside the table, for whoever follows next."""

    def __init__(self, table: Table):
        self.held: set[Job] = set()
        self.folder = table.path.with_suffix("") / "slurm"
        self.folder.mkdir(parents=True, exist_ok=True)

    def remember(self, job: Job, number: str) -> None:
        write_json(self._path(job), {"id": number})

    def living(self, jobs: "Sequence[Job] | set[Job]") -> set[Job] | None:
        """Those of `jobs` that wait or run; None if the queue can't be asked."""
        asked = _ask("squeue", "--me", "--noheader", "--array", "--format=%i %r")
        if asked is None:
            return None
        reasons = dict(line.split(maxsplit=1) for line in asked.splitlines())
        living = {job: reasons[number] for job in jobs if (number := self._number(job)) in reasons}
        held = {job for job, reason in living.items() if re.search("held|hold", reason, re.IGNORECASE)}
        for job in held - self.held:
            log.warning("%s is held (%s): scontrol release %s", job, living[job], self._number(job))
        self.held = held
        return set(living)

    def cancel(self, jobs: set[Job]) -> None:
        there = self.living(jobs)  # scancel complains of what has ended
        numbers = [number for job in (jobs if there is None else there) if (number := self._number(job))]
        if numbers and _ask("scancel", *numbers) is None:
            log.warning("their SLURM jobs may run on: scancel %s", " ".join(numbers))

    def _number(self, job: Job) -> str | None:
        try:
            number: str = json.loads(self._path(job).read_text())["id"]
        except (OSError, ValueError, KeyError):
            return None
        return number

    def _path(self, job: Job) -> Path:
        return self.folder / f"{job.name}-seed{job.seed}.json"


def _shape(table: Table) -> tuple[int, int]:
    """Nodes of a job, and tasks on each: one for a device."""
    trainers = [variant.config["trainer"] for variant in table.variants.values()]
    shapes = {(trainer["num_nodes"], trainer["devices"]) for trainer in trainers}
    if len(shapes) > 1:
        raise ValueError("rows have different trainer.devices or trainer.num_nodes; SLURM takes one shape a study")
    ((nodes, devices),) = shapes
    if not isinstance(devices, int) or devices < 1:
        raise ValueError(f"trainer.devices is {devices!r}; SLURM must be told a number")
    return nodes, devices


def _is_one_process(table: Table) -> bool:
    return _shape(table) == (1, 1)


def _exports(table: Table) -> list[str]:
    """Shell lines that make the snapshot the code of whoever supervises a job too: he may start days after an edit."""
    assert table.code is not None
    code = environment(table.runs, table.code)
    return [f"export {key}={shlex.quote(code[key])}" for key in ("PYTHONPATH", "PYTHONSAFEPATH")]


def _ask(*command: str) -> str | None:
    """What a command of SLURM prints; None, and a warning, if it fails."""
    try:
        asked = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError(f"engine=slurm needs a machine of a SLURM cluster, and here is no {command[0]}") from None
    if asked.returncode:
        log.warning("%s: %s", command[0], asked.stderr.strip())
        return None
    return asked.stdout


def _own_id() -> str:
    """Of the SLURM job that this process is in, as scontrol names it."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
