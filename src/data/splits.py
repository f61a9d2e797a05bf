"""Fixed partitions of a labelled set."""

from collections.abc import Sequence

import numpy as np

SPLIT_SEED = 0  # a constant of the protocol, not of a run: every run must be judged on the same images


def stratified_split(labels: Sequence[int] | np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """Disjoint index arrays of exactly `sizes` items, each with the class proportions of `labels`.

    Args:
        labels: (N,) class of every item.
        sizes: items per part, at most N in total.

    Raises:
        ValueError: when `sizes` ask for more items than there are, or for fewer than none.
    """
    labels = np.asarray(labels)
    if sum(sizes) > len(labels) or min(sizes) < 0:
        raise ValueError(f"cannot split {len(labels)} items into parts of {list(sizes)}")

    # Shuffle, then order by each item's relative rank in its class: any stretch of that order is stratified.
    # RandomState, because its stream is frozen for all NumPy versions and default_rng's is not.
    order = np.random.RandomState(SPLIT_SEED).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    _, counts = np.unique(labels, return_counts=True)
    relative_rank = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    order = by_class[np.argsort(relative_rank, kind="stable")]

    ends = np.cumsum(sizes)
    return [np.sort(order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
