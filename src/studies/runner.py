"""`study run`: an engine at work on a table, said aloud, and ended in order."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.live import Live

from src.runs.durations import duration
from src.runs.exit_codes import INTERRUPTED
from src.studies.engines.base import STARTED, Engine
from src.studies.states import TO_DO, State, state_of, states
from src.studies.summary import now, summary, work_left
from src.studies.table import Job, Table
from src.studies.view import REFRESH, console, lines, live

LOOK_EVERY = 10.0  # seconds


def run_jobs(table: Table, jobs: Sequence[Job], engine: Engine) -> int:
    """Runs `jobs` by `engine`; the exit code says whether the whole study is finished.

    Ctrl-C, SIGTERM and a closed terminal end the jobs in order, which keeps what they have.
    """
    table.write()
    terminal = console()
    done = sum(state.status == "finished" for state in states(table))
    workers = engine.side_by_side(table, len(jobs))
    terminal.print(
        f"{table.study}: {len(table.jobs)} jobs, {done} finished, {len(jobs)} to do, "
        f"{workers} at a time; table {table.key}"
    )
    stop = threading.Event()
    watched = _live(table, workers) if terminal.is_terminal else _Lines(table, workers)
    with _stopped_by_signals(stop), watched as watch:
        engine.run(table, jobs, watch.report, stop)
    if engine.detached:
        return 0
    status = summary(table, states(table))
    if not terminal.is_terminal:
        print("\n".join(["", *lines(status)]), flush=True)
    if stop.is_set():
        terminal.print("stopped; the same command goes on from the last checkpoints")
        return INTERRUPTED
    return 0 if status["counts"].get("finished", 0) == len(table.jobs) else 1


def to_do(table: Table) -> list[Job]:
    """Jobs that nobody has finished, those that another runner is at included: it may die."""
    return [state.job for state in states(table) if state.status in (*TO_DO, "running")]


class _Lines:
    """A line per job that starts or ends, for logs.

    How far the study is is read from all run folders, but not at every line: that would cost each job more, the more
    jobs there are. In between, what the lines themselves tell is counted.
    """

    def __init__(self, table: Table, workers: int):
        self.table, self.workers, self.lock = table, workers, threading.Lock()
        self.found: dict[Job, State] = {}
        self.looked = float("-inf")

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def report(self, job: Job, status: str) -> None:
        with self.lock:
            if status == STARTED:
                self._say(f"started   {job}")
                return
            state = state_of(self.table, job)
            self._say(f"{status:9} {job}{_result(state)}{self._so_far(state)}")

    def _so_far(self, state: State) -> str:
        if time.monotonic() - self.looked > LOOK_EVERY:
            self.found = {found.job: found for found in states(self.table, list(self.found.values()))}
            self.looked = time.monotonic()
        self.found[state.job] = state
        found = list(self.found.values())
        finished, left = sum(state.status == "finished" for state in found), work_left(found)
        about = f", about {duration(left / self.workers)} left" if left else ""
        return f"; {finished} of {len(self.table.jobs)} finished{about}"

    def _say(self, text: str) -> None:
        print(f"{now()} {text}", flush=True)


def _result(state: State) -> str:
    record = state.record or {}
    if state.status == "finished":
        return f"  test/acc1 {state.metrics['test/acc1']:.4f}  {duration(record['wall_seconds'])}"
    error = None if state.status == "interrupted" else record.get("error")
    return f"  {error['type']}: {error['message'].splitlines()[0][:200]}" if error and error["message"] else ""


class _Silent:
    def report(self, job: Job, status: str) -> None:
        """The live view shows it."""


@contextmanager
def _live(table: Table, workers: int) -> Iterator[_Silent]:
    """The live view, refreshed from the run folders by a thread until the block ends."""
    over, found = threading.Event(), states(table)
    with Live(live(summary(table, found, workers)), console=console(), auto_refresh=False) as view:

        def show() -> None:
            nonlocal found
            found = states(table, found)
            view.update(live(summary(table, found, workers)), refresh=True)

        def refresh() -> None:
            while not over.wait(REFRESH):
                show()

        thread = threading.Thread(target=refresh, name="view", daemon=True)
        thread.start()
        try:
            yield _Silent()
        finally:
            over.set()
            thread.join()
            show()


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Inside, the signals that end a program only set `stop`."""
    signals = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]

    def ask(signum: int, frame: Any) -> None:
        if not stop.is_set():
            console().print("\nstopping: the jobs are asked to end, and keep what they have")
        stop.set()

    before = {signum: signal.signal(signum, ask) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
