"""The sign-flip test of paired differences (Fisher, 1935): if the two variants are equal, each sign is a coin's.

It supposes nothing of the shape of the differences but that they are symmetric about zero where nothing is different.
scipy's `permutation_test` is the same test, and finds the same p; it walks through the flips one by one.
"""

from itertools import product

import numpy as np

from src.statistics.exact import whole

EXACT = 16  # seeds; up to here every flip is looked at
FLIPS = 2**EXACT - 1  # random ones beyond
BLOCK = 64  # comparisons at a time: their flips take 32 MB


def sign_flip(differences: np.ndarray) -> np.ndarray:
    """The two-sided p of each comparison: the share of flips whose mean is at least as far from zero.

    Args:
        differences: (comparisons, seeds), in percentage points.

    Returns:
        (comparisons,). Random flips count what was seen as one more, so that p isn't 0 (Phipson and Smyth, 2010).
    """
    units = whole(differences)
    seeds = units.shape[1]
    if exact := seeds <= EXACT:
        # A flip and its opposite are equally far from zero: the first sign stays.
        signs = np.array([(1, *others) for others in product((1, -1), repeat=seeds - 1)], dtype=float)
    else:
        signs = np.random.default_rng(seeds).choice([-1.0, 1.0], size=(FLIPS, seeds))
    found = np.empty(len(units))
    for start in range(0, len(units), BLOCK):
        block = units[start : start + BLOCK]
        # Each whole number may be off by half a unit where a point isn't a decimal number of images.
        as_far = np.abs(block @ signs.T) >= np.abs(block.sum(axis=1, keepdims=True)) - seeds
        found[start : start + BLOCK] = as_far.mean(axis=1) if exact else (as_far.sum(axis=1) + 1) / (FLIPS + 1)
    return found
