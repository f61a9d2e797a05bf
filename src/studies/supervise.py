"""One job, watched: started in a process of its own, ended when it hangs, started again when it fails.

Every engine does this and nothing else, on whichever machine it is: `supervise` needs only the run folders. What the
job could not say about its end itself, since it was killed, is put into its record here.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from src.runs.exit_codes import DIVERGED, ELSEWHERE, INTERRUPTED, REFUSED
from src.runs.process import rank
from src.runs.record import PROGRESS, last_sign_of_life
from src.runs.session import claim, conclude
from src.studies.snapshot import environment
from src.studies.states import state_of
from src.studies.table import Job, Table

log = logging.getLogger(__name__)

PARENT = "DATLAB_PARENT"  # tells a job which process supervises it

POLL = 0.2  # seconds between two looks at a job
LAST_WORDS = 60.0  # seconds that a job has for ending in order once it is asked to
LONGEST_PAUSE = 30.0  # seconds between two attempts


@dataclass(frozen=True)
class Limits:
    """What a job may take.

    Attributes:
        retries: how often it is started again after a failure, in one `run`.
        silence: seconds without a step of progress after which it counts as hanging.
        time_limit: seconds for one attempt, or None.
    """

    retries: int
    silence: float
    time_limit: float | None


def supervise(
    table: Table,
    job: Job,
    limits: Limits,
    *,
    env: Mapping[str, str],
    stop: threading.Event,
) -> str:
    """Runs `job` to its end, and returns how it ended.

    Args:
        env: added to the job's environment: its devices, its threads.
        stop: when set, the job is asked to end, and what it has is kept.

    Returns:
        A status of a record, or "elsewhere" if another process is at it.
    """
    for attempt in range(limits.retries + 1):
        if attempt and stop.wait(min(2.0**attempt, LONGEST_PAUSE)):
            return "interrupted"
        status, again = _attempt(table, job, limits, env, stop)
        if not again or stop.is_set():
            break
        log.info("%s: attempt %d %s", job, attempt + 1, status)
    return status


def _attempt(table: Table, job: Job, limits: Limits, env: Mapping[str, str], stop: threading.Event) -> tuple[str, bool]:
    """How one attempt ended, and whether another one may do better."""
    assert table.code is not None
    command = [sys.executable, "-m", "src.job", str(table.path.resolve()), job.name, str(job.seed)]
    environ = {**environment(table.runs, table.code), **env, PARENT: str(os.getpid())}
    began = time.time()
    with _output(table.output(job)) as output:
        process = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        ended = None
        try:
            ended = _watch(process, table, job, limits, began, stop)
        finally:
            _end(process, ask=ended is None)
    code = process.returncode
    if code == ELSEWHERE:
        return "elsewhere", False
    state = state_of(table, job)
    if code == 0 and state.status == "finished":
        return "finished", False
    if code == DIVERGED:
        return "diverged", False
    if stop.is_set():
        return "interrupted", False
    if ended is None and code < 0:
        name = signal.Signals(-code).name
        hint = "; so the system does when memory is short: fewer workers or a smaller recipe.batch_size need less"
        ended = "Killed", f"the process was ended by {name}{hint if name == 'SIGKILL' else ''}"
    if rank() == 0:
        if state.record is None and ended is None:
            ended = (
                "NoRun",
                f"the process ended with exit code {code} before its run began: {table.output(job)}",
            )
        if ended and not conclude(table.folder(job), "failed", *ended) and state.record is None:
            _record_failure(table, job, ended[1])
    if code == INTERRUPTED and ended is None:
        return "interrupted", True
    return "failed", code != REFUSED and (ended is None or ended[0] != "TimeLimit")


def _record_failure(table: Table, job: Job, message: str) -> None:
    """Of a job that died before it had a record."""
    with suppress(Exception), claim(table.config(job), root=table.runs):
        raise RuntimeError(message)


def _watch(
    process: subprocess.Popen[bytes],
    table: Table,
    job: Job,
    limits: Limits,
    began: float,
    stop: threading.Event,
) -> tuple[str, str] | None:
    """Returns when `process` has ended or must: None, or the reason that it could not know (type, message)."""
    progress = table.folder(job) / PROGRESS
    while process.poll() is None and not stop.wait(POLL):
        now = time.time()
        if limits.time_limit is not None and now - began > limits.time_limit:
            return "TimeLimit", f"still running after engine.time_limit={limits.time_limit:.0f} s; raise it"
        moved = max(began, last_sign_of_life(progress) or 0.0)
        if now - moved > limits.silence:
            return "Hung", (
                f"no step in {limits.silence:.0f} s (engine.silence); the last was at "
                f"{time.strftime('%H:%M:%S', time.localtime(moved))}"
            )
    return None


def _end(process: subprocess.Popen[bytes], *, ask: bool) -> None:
    """Ends a job that still runs, in order if it is asked to, and leaves no process of its group behind.

    One that hangs isn't asked: it would have to say "interrupted", which isn't why it ends.
    """
    if ask and process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(LAST_WORDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # also what a dead job has left: loaders, other ranks
    process.wait()


def _output(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        log.warning("%s can't be written (%s); what the job prints is lost", path, error)
        return open(os.devnull, "ab")
