"""How a command ends: what its user can put right is said in one line, and the exit code tells why nothing came out."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import CompactHydraException

from src.ranks import JobFailed
from src.runs.exit_codes import DIVERGED, ELSEWHERE, INTERRUPTED, REFUSED
from src.runs.session import Diverged, RunningElsewhere, status_of

log = logging.getLogger(__name__)


class NoResult(CompactHydraException):
    """A job of a multirun has failed. Hydra goes on with the others, then prints this without a traceback."""


@contextmanager
def one_line_errors(*, several: bool, again: str) -> Iterator[None]:
    """Ends the process with a line and an exit code where a traceback would not help.

    Args:
        several: the command is one job among others in this process, which must go on.
        again: what the same command does after an interruption.

    Raises:
        NoResult: `several`, and there is none.
    """
    try:
        yield
    except BaseException as error:
        if status_of(error) == "interrupted":  # whatever it became on its way
            log.error("interrupted; the same command %s", again)
            sys.exit(INTERRUPTED)
        if is_refusal(error) or isinstance(error, RunningElsewhere | Diverged):
            log.error("%s", error)
            if several:
                raise NoResult(str(error)) from error  # leaving the process would end the other jobs
            sys.exit(exit_code(error))
        if several and isinstance(error, Exception):  # now: Hydra prints the first one only, after the last job
            log.error("%s: %s", type(error).__name__, error)
        raise


def is_refusal(error: BaseException) -> bool:
    """Whether the user can put it right: geometry, data, a value, what Lightning calls misconfigured."""
    if isinstance(error, ValueError | JobFailed):
        return True
    # Not imported for this: that takes seconds, and where it isn't loaded it has raised nothing.
    lightning = sys.modules.get("lightning.pytorch.utilities.exceptions")
    return lightning is not None and isinstance(error, lightning.MisconfigurationException)


def exit_code(error: BaseException) -> int:
    """Of a process that a refusal, another process or a loss that isn't finite ends."""
    if isinstance(error, RunningElsewhere):
        return ELSEWHERE
    return DIVERGED if isinstance(error, Diverged) else REFUSED
