"""What all tests share."""

import gc
import sys
from pathlib import Path

# Modules and tests are a million objects that stay: looking for garbage among them, now and with each collection
# later, takes longer than many a test.
gc.disable()

import torch  # noqa: E402

# Tests run side by side: threads of their own would only get in each other's way.
torch.set_num_threads(1)
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "models")]


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def pytest_sessionfinish():
    gc.unfreeze()  # or libraries complain at the end of what they take for leaks
