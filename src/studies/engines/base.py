"""What the engines have in common."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from src.studies.supervise import Limits
from src.studies.table import Job, Table

STARTED = "started"

# Told of each job: `STARTED`, and then how `supervise` says that it ended.
Report = Callable[[Job, str], None]


class Engine(ABC):
    """Runs jobs; the arguments are those of conf/engine/.

    Args:
        workers: jobs side by side; "auto" lets the engine choose.
        retries, silence, time_limit: as in `Limits`.
    """

    def __init__(self, *, workers: int | str, retries: int, silence: float, time_limit: float | None):
        if workers != "auto" and not (type(workers) is int and workers >= 1):
            raise ValueError(f"engine.workers is {workers!r}; it must be a number from 1, or auto")
        if retries < 0:
            raise ValueError(f"engine.retries is {retries}; it must be 0 or more")
        for name, seconds in (("silence", silence), ("time_limit", time_limit)):
            if seconds is not None and not seconds > 0:
                raise ValueError(f"engine.{name} is {seconds}; it must be above 0 seconds")
        self.workers = workers
        self.detached = False
        self.limits = Limits(retries=retries, silence=silence, time_limit=time_limit)

    @abstractmethod
    def side_by_side(self, table: Table, jobs: int) -> int:
        """How many of `jobs` jobs run at once."""

    @abstractmethod
    def devices(self, table: Table) -> int:
        """Devices that a job has for itself: GPUs, or without any the cores."""

    @abstractmethod
    def threads_of_a_job(self, table: Table) -> int | None:
        """None if only its machine knows."""

    def memory_of_a_job(self, table: Table, workers: int) -> float | None:
        """MB that each of `workers` jobs may hold, or None if only its machine knows."""
        return None

    def probe_slots(self, table: Table, workers: int) -> list[dict[str, str]]:
        """The environments in which variants are probed side by side, on this machine: as their jobs will run."""
        return [{}]

    @abstractmethod
    def run(self, table: Table, jobs: Sequence[Job], report: Report, stop: threading.Event) -> None:
        """Runs `jobs` until each has ended or `stop` is set; leaves no process behind."""

    def detach(self) -> None:
        """From now on `run` only hands jobs over; raises ValueError where nobody would run them then."""
        raise ValueError("--detach needs an engine with a queue of its own: engine=slurm")
