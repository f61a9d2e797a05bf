"""How a command ends: what its user can put right is said in one line, and the exit code tells why nothing came out.

`command` is for what argparse reads, `one_line_errors` for jobs that Hydra starts.
"""

import functools
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec

from src.runs.exit_codes import DIVERGED, ELSEWHERE, INTERRUPTED, REFUSED
from src.runs.session import Diverged, JobFailed, RunningElsewhere, status_of

log = logging.getLogger(__name__)

P = ParamSpec("P")


# ------------------------------------------------------------------------------------- read by argparse


def command(
    *, interrupted: str = "the same command begins anew"
) -> Callable[[Callable[P, int | None]], Callable[P, int]]:
    """Makes of `main` what returns the exit code of its process.

    What the user can put right, and an interruption, is a line on stderr. Once nobody reads stdout any more, as after
    `| head`, the command ends without a word.

    Args:
        interrupted: what is left of an interrupted command, if the interruption doesn't say so itself.
    """

    def ending(main: Callable[P, int | None]) -> Callable[P, int]:
        @functools.wraps(main)
        def ended(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                code = main(*args, **kwargs) or 0
                sys.stdout.flush()  # what can't be written is an error here, not when Python ends
                return code
            except KeyboardInterrupt as stop:
                _say(f"interrupted; {stop if stop.args else interrupted}")
                return INTERRUPTED
            except Exception as error:
                if isinstance(error, BrokenPipeError) and _nobody_reads():
                    return 0
                if not (is_refusal(error) or isinstance(error, OSError) or _is_of_config(error)):
                    raise
                _say(" ".join(str(error).split()) or type(error).__name__)
                return REFUSED
            finally:
                _let_go_of_stdout()  # after --help, too

        return ended

    return ending


def _say(line: str) -> None:
    with suppress(BrokenPipeError):  # 2>&1 | head
        print(line, file=sys.stderr)


def _nobody_reads() -> bool:
    """Whether stdout is the broken pipe: there are others, such as a network's."""
    poll = select.poll()
    poll.register(sys.stdout, 0)  # errors are reported unasked
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _let_go_of_stdout() -> None:
    """Python writes what is left when it ends, and would tell of a reader that has gone."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _write_to_nowhere()
    except OSError:  # a full disk, which Python is to tell of
        pass


def _write_to_nowhere() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


# ------------------------------------------------------------------------------------- jobs of Hydra


def end_with_reader() -> None:
    """Until a job begins, this process ends once nobody reads stdout any more; Hydra would print a traceback."""
    _on_broken_pipe(signal.SIG_DFL)


def _on_broken_pipe(handler: Any) -> Any:
    """Sets what happens then; returns what happened before, None where nothing can be set."""
    if hasattr(signal, "SIGPIPE") and threading.current_thread() is threading.main_thread():  # only it may
        return signal.signal(signal.SIGPIPE, handler)
    return None


def _stop_without_reader(signum: int, frame: Any) -> None:
    """As Ctrl-C: a job ends in order, and goes on another time. A write that fails would count as its own failure."""
    if _nobody_reads():
        _write_to_nowhere()
        signal.raise_signal(signal.SIGINT)


@contextmanager
def one_line_errors(*, several: bool, again: str) -> Iterator[None]:
    """Ends the process with a line and an exit code where a traceback would not help.

    Once nobody reads stdout any more, as after `| head`, the job is interrupted.

    Args:
        several: the command is one job among others in this process, which must go on.
        again: what the same command does after an interruption.

    Raises:
        CompactHydraException: `several`, and there is no result. Hydra goes on with the others, then prints this
            without a traceback.
    """
    before = _on_broken_pipe(_stop_without_reader)
    try:
        yield
    except BaseException as error:
        if status_of(error) == "interrupted":  # whatever it became on its way
            log.error("interrupted; the same command %s", again)
            sys.exit(INTERRUPTED)
        if is_refusal(error) or isinstance(error, RunningElsewhere | Diverged):
            log.error("%s", error)
            if several:
                from hydra.errors import CompactHydraException  # is loaded: Hydra has started this job

                raise CompactHydraException(str(error)) from error  # leaving the process would end the other jobs
            sys.exit(exit_code(error))
        if several and isinstance(error, Exception):  # now: Hydra prints the first one only, after the last job
            log.error("%s: %s", type(error).__name__, error)
        raise
    finally:
        if before is not None:
            _on_broken_pipe(before)


def exit_code(error: BaseException) -> int:
    """Of a process that a refusal, another process or a loss that isn't finite ends."""
    if isinstance(error, RunningElsewhere):
        return ELSEWHERE
    return DIVERGED if isinstance(error, Diverged) else REFUSED


# ------------------------------------------------------------------------------------- what is an error of whom


def is_refusal(error: BaseException) -> bool:
    """Whether the user can put it right: geometry, data, a value, what Lightning calls misconfigured."""
    return isinstance(error, ValueError | JobFailed) or _is_a(
        error, "lightning.pytorch.utilities.exceptions", "MisconfigurationException"
    )


def _is_of_config(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf refuses what is said of conf/."""
    return _is_a(error, "hydra.errors", "HydraException") or _is_a(error, "omegaconf.errors", "OmegaConfBaseException")


def _is_a(error: BaseException, module: str, name: str) -> bool:
    # Not imported for this: that takes seconds, and what isn't loaded has raised nothing.
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(error, getattr(loaded, name))
