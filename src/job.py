"""One job of a frozen study, in a process of its own: `python -m src.job runs/<study>/.tables/<key>.json <row> <seed>`.

Started by a study's engine; `python -m src.study` is what people use.
"""

import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from src.commands import is_refusal, one_line_errors
from src.imports import uncollected
from src.runs.identity import identity
from src.runs.record import read_record
from src.runs.session import AlreadyFinished, RunningElsewhere, claim
from src.studies.definition import StudyError
from src.studies.supervise import PARENT
from src.studies.table import read_table

ORPHANED_AFTER = 60.0  # seconds that an orphan has for ending in order


def main(path: str, name: str, seed: str) -> None:
    """Trains; the exit code is that of `src.train`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    end_with_parent()
    if hasattr(signal, "SIGUSR2"):
        # SLURM's warning reaches every process of a job where it tracks them by cgroups; it is for the supervisor.
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    with one_line_errors(several=False, again="goes on from the last checkpoint"):
        with uncollected():
            from src.training import train  # after `end_with_parent`: an orphan needn't load it

        table = read_table(Path(path))
        job = table.job(name, int(seed))
        cfg = {**table.config(job), "runs": str(table.runs), "progress": "lines"}
        if identity(cfg) != job.identity:
            raise StudyError(f"{path}: the config of {job} isn't that of its identity; freeze the study anew")
        before = _attempts(table.folder(job))
        try:
            train(cfg)
        except Exception as error:
            if is_refusal(error) and _attempts(table.folder(job)) == before:
                # Refused before the run began: its record says so, or nobody would know in the morning.
                with suppress(AlreadyFinished, RunningElsewhere), claim(cfg, root=cfg["runs"]):
                    raise
            raise


def _attempts(folder: Path) -> int:
    return len((read_record(folder) or {}).get("attempts", ()))


def end_with_parent() -> None:
    """Ends this process in order when the one that supervises it dies, which leaves it no chance to say so."""
    parent = int(os.environ.get(PARENT, "0"))
    if not parent or os.environ.get("LOCAL_RANK", "0") != "0":
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHANED_AFTER)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def leave(code: int) -> None:
    """Ends this process at once: Python would take more than a second to take apart what it has loaded.

    All that a run leaves is on the disk by now. Who supervises it ends what it has started.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else 1)
    leave(0)
