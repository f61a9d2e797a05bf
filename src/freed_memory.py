"""Freed memory stays with the process, on Linux.

glibc hands memory back to the kernel when it is freed. A training step frees and asks for the same blocks again, so the
kernel fills them with zeros anew, page by page, each time. Blocks of up to 32 MiB, the
most that glibc allows, are kept. Larger ones still go back: kept, their gaps could hold up as much memory again.
"""

import ctypes
import sys

# Parameters of mallopt(3) and their values: blocks up to a size come from the heap, which is never trimmed and grows by
# so many bytes at once.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_NEVER, _GROWTH = 2**31 - 1, 64 * 2**20
KEPT = 32 * 2**20  # bytes of a block


def keep_freed_memory() -> bool:
    """For the rest of this process; returns whether its C library has such a setting."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(
        mallopt(*setting) == 1 for setting in ((_MMAP_THRESHOLD, KEPT), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROWTH))
    )
