"""How often a bootstrap resample holds each item. The same sizes give the same resamples, in every process."""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=64)
def counts(items: int, resamples: int, what: str) -> np.ndarray:
    """(resamples, items), float32: rows add up to `items`. The mean of a resample is `counts @ values / items`.

    Kept between calls, because a page asks for the same ones for every pair of variants.

    Args:
        what: is resampled, such as "seeds"; other words give independent resamples.
    """
    rng = np.random.default_rng([items, *what.encode()])
    found = np.empty((resamples, items), np.float32)
    for row, drawn in zip(found, rng.integers(items, size=found.shape), strict=True):
        row[:] = np.bincount(drawn, minlength=items)
    found.setflags(write=False)
    return found
