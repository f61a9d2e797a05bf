"""What the tests of studies share."""

import os
import signal

import pytest
from study_tools import processes


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path):
    yield
    left = processes(tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left
