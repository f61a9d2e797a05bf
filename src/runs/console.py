"""`log.txt`: all that a run said, tracebacks included.

Hydra writes nothing about a failure into a job's log, and prints only the first traceback of a multirun.
"""

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.runs.process import rank
from src.runs.record import utc

# These may keep their messages from the root logger.
_APART = ("lightning.pytorch", "lightning.fabric", "src.runs.progress")

# Warnings about what is meant as it is.
_NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own code
    r"It is recommended to use `self.log\(.*sync_dist=True",  # speed, memory and offsets are rank zero's
    r"The `srun` command is available on your system but is not used",  # a study's engine decides that
    r"Grad strides do not match bucket view strides",  # ddp and depthwise kernels
)


@contextmanager
def log_to(folder: str | Path) -> Iterator[Path]:
    """Copies log messages and warnings, and the exception the block ends with, into `folder/log.txt`.

    What goes to the console stays there. Attempts follow one another in the same file; ranks above zero have
    their own, and leave the console to rank zero, except for errors.
    """
    path = Path(folder) / ("log.txt" if rank() == 0 else f"log-rank{rank()}.txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path, encoding="utf-8")
    formatter = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%SZ")
    formatter.converter = time.gmtime
    file.setFormatter(formatter)

    root = logging.getLogger()
    level = root.level
    added: list[tuple[logging.Logger, logging.Handler]] = []
    if not root.handlers:  # with only the file, warnings would no longer reach the console
        console = logging.StreamHandler()
        console.setFormatter(logging.Formatter("%(message)s"))
        added.append((root, console))
    levels = [(handler, handler.level) for handler in root.handlers]
    if rank() > 0:
        for handler, _ in levels:
            handler.setLevel(logging.ERROR)
    apart = [logger for logger in map(logging.getLogger, _APART) if not logger.propagate]
    added += [(logger, file) for logger in (root, *apart)]
    for logger, handler in added:
        logger.addHandler(handler)
    root.setLevel(min(level, logging.INFO) if level else logging.INFO)
    # Taken over only if nobody did so before, and then given back.
    captured_before = warnings.showwarning.__module__ == "logging"
    logging.captureWarnings(True)

    _into(file, logging.INFO, f"--- attempt started {utc()}")
    try:
        with warnings.catch_warnings():
            for message in _NOISE:
                warnings.filterwarnings("ignore", message)
            yield path
    except BaseException as error:
        # Into the file only: whoever catches it, Python itself in the end, prints it.
        _into(file, logging.ERROR, "the run ended with an exception", error)
        raise
    finally:
        if not captured_before:
            logging.captureWarnings(False)
        root.setLevel(level)
        for handler, handler_level in levels:
            handler.setLevel(handler_level)
        for logger, handler in added:
            logger.removeHandler(handler)
        file.close()


def _into(file: logging.Handler, level: int, message: str, error: BaseException | None = None) -> None:
    trace = None if error is None else (type(error), error, error.__traceback__)
    file.handle(logging.LogRecord(__name__, level, __file__, 0, message, None, trace))
