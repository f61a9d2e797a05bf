"""Differences as whole numbers, so that what is equal on paper is equal here.

Accuracies are multiples of one image's share, so equal means and equal sums are common among resamples and flips, and
a test counts them. In floating point 0.1 + 0.2 isn't 0.3; in whole billionths of a point it is.
"""

import numpy as np

PER_POINT = 1e9


def whole(differences: np.ndarray) -> np.ndarray:
    """Percentage points as whole billionths, in float64: sums of up to 10,000 of them are exact.

    Raises:
        ValueError: a difference isn't a number between -100 and 100.
    """
    differences = np.asarray(differences, dtype=float)
    if not (np.abs(differences) <= 100).all():
        wrong = differences[~(np.abs(differences) <= 100)][0]
        raise ValueError(f"difference {wrong} isn't one of two accuracies in percentage points: give -100 to 100")
    return np.rint(differences * PER_POINT)
