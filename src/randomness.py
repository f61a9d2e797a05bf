"""Random numbers as a pure function of their keys.

An item's augmentation depends on the run's seed and the item's number, a layer's first weights on the seed and the
layer's name, and both on nothing that happened before: two variants of one seed see the same images and begin with the
same weights, and neither resuming nor the number of workers changes them.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_from(*keys: int | str) -> int:
    """A 63-bit seed made of `keys`; hashed, so that neighbouring keys give unrelated streams."""
    digest = hashlib.sha256("/".join(map(str, keys)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator_from(*keys: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(seed_from(*keys))


@contextmanager
def randomness_from(*keys: int | str) -> Iterator[None]:
    """Inside, Python's, NumPy's and torch's CPU generators follow `keys`; afterwards they are as before.

    torch.manual_seed would reseed the GPU as well and with it drop path: only the CPU generator is touched.
    """
    seed = seed_from(*keys)
    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.default_generator.set_state(before[2])
