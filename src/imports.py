"""Imports that take seconds, made shorter."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """For imports that make a million objects which stay.

    Looking for garbage among them takes a fifth of the imports' time, and again whenever it is done later: so it waits,
    and never looks at them.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # or libraries complain at the end of what they take for leaks
        if before:
            gc.enable()
