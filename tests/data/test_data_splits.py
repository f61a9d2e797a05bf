import numpy as np
import pytest

from src.data.splits import stratified_split

LABELS = np.repeat([0, 1, 2], [700, 200, 100])[np.random.RandomState(1).permutation(1000)]


def test_parts_are_disjoint_and_of_the_given_size():
    parts = stratified_split(LABELS, [600, 250, 100])
    assert [len(part) for part in parts] == [600, 250, 100]
    assert len(set(np.concatenate(parts).tolist())) == 950


def test_every_part_has_the_class_proportions():
    for part in stratified_split(LABELS, [600, 300, 100]):
        counts = np.bincount(LABELS[part])
        assert np.abs(counts - len(part) * np.array([0.7, 0.2, 0.1])).max() <= 2


def test_the_split_is_fixed():
    # Pinned: another NumPy must not move images from training to test.
    train, test = stratified_split(np.arange(20) % 2, [14, 6])
    assert test.tolist() == [0, 3, 11, 12, 15, 16]
    assert sorted([*train, *test]) == list(range(20))


def test_asking_for_too_much_is_an_error():
    with pytest.raises(ValueError, match="1000 items"):
        stratified_split(LABELS, [900, 200])
    with pytest.raises(ValueError, match="-5"):
        stratified_split(LABELS, [1005, -5])
