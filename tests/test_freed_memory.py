"""Freed memory is used again, and not asked of the kernel anew."""

import subprocess
import sys

import pytest

from src.freed_memory import keep_freed_memory

SCRIPT = """
import resource, sys
import numpy as np
sys.path.insert(0, ".")
from src.freed_memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def use():
    return [np.ones(2**21) for _ in range(4)]  # 16 MiB each
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def new_pages(how):
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is Linux's")
def test_memory_is_used_again():
    assert new_pages("kept") * 10 < new_pages("as it is")


def test_other_systems_are_left_as_they_are(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
