"""Freed memory stays with the process, on Linux.

glibc hands large blocks back to the kernel as soon as they are freed. A training step frees and asks for the same
blocks again, so the kernel fills them with zeros anew, page by page, each time: 4 to 10 % of a step on a CPU. The most
memory that a process holds stays the same; it just isn't given back in between.
"""

import ctypes
import sys

# Parameters of mallopt(3) and their values: blocks of any size come from the heap, which is never trimmed and grows
# by so many bytes at once.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_NEVER, _GROWTH = 2**31 - 1, 64 * 2**20


def keep_freed_memory() -> bool:
    """For the rest of this process; returns whether its C library has such a setting."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(*setting) == 1 for setting in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROWTH)))
