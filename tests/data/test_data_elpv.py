import sys

import numpy as np
import pytest
import torch

from src.data.base import DataError
from src.data.elpv import ELPV

OPTIONS = {
    "name": "elpv",
    "num_classes": 4,
    "image_size": 64,
    "batch_size": 32,
    "seed": 0,
    "workers": 0,
    "val_fraction": 0.15,
    "test_fraction": 0.15,
}


def test_a_missing_package_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr("src.data.elpv.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install elpv-dataset") as error:
        ELPV(**OPTIONS).check()
    assert "\n" not in str(error.value)


def test_nothing_is_imported_to_find_it():
    sys.modules.pop("elpv_dataset", None)
    try:
        ELPV(**OPTIONS).check()
    except DataError as error:
        pytest.skip(str(error))
    assert "elpv_dataset" not in sys.modules


def test_cells_and_classes():
    pytest.importorskip("elpv_dataset", reason="pip install elpv-dataset")
    data = ELPV(**OPTIONS)
    parts = {split: files.labels[indices] for split, (files, indices) in data.splits.items()}
    assert {split: len(labels) for split, labels in parts.items()} == {"train": 1836, "val": 394, "test": 394}
    whole = np.concatenate(list(parts.values()))
    assert np.bincount(whole).tolist() == [1508, 295, 106, 715]
    for labels in parts.values():
        expected = np.bincount(whole) * len(labels) / len(whole)
        assert np.abs(np.bincount(labels) - expected).max() <= 2
    assert len({index for _, indices in data.splits.values() for index in indices.tolist()}) == 2624

    images = torch.cat([images for images, _ in data.val_dataloader()])
    assert images.shape == (394, 3, 64, 64)
    assert abs(images.mean()) < 0.1 and abs(images.std() - 1) < 0.1
