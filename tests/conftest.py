"""What all tests share."""

import sys
from pathlib import Path

import torch

# Tests run side by side: threads of their own would only get in each other's way.
torch.set_num_threads(1)
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "models")]
