"""Missing, damaged and half-downloaded benchmarks; what becomes of whole ones."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from data_fakes import write_idx

from src.data.base import DataError
from src.data.fashion_mnist import FashionMNIST, read_idx

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # apt-get install dataset-fashion-mnist
NAMES = ["fashion_mnist", "cifar10", "cifar100"]


def message(data):
    """The one line that `check` says."""
    with pytest.raises(DataError) as error:
        data.check()
    assert "\n" not in str(error.value)
    return str(error.value)


def some_file(data, number):
    return sorted(path for path in data.root.rglob("*") if path.is_file() and path.suffix != ".lock")[number]


@pytest.mark.parametrize("name", NAMES)
def test_missing_data_says_what_where_and_how(make_data, tmp_path, name):
    said = message(make_data(name, root=str(tmp_path / "nowhere")))
    assert said.startswith(f"{name}: ") and "is missing" in said
    assert str(tmp_path / "nowhere") in said
    assert "data.download=true" in said
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("name", NAMES)
def test_a_truncated_file_is_named(make_data, name, number):
    data = make_data(name)
    path = some_file(data, number)
    path.write_bytes(path.read_bytes()[:-9])
    said = message(data)
    assert path.name in said and "cut short" in said and str(data.root) in said


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_download_is_one_line(make_data, tmp_path, monkeypatch, name):
    data = make_data(name, root=str(tmp_path / "empty"), download=True)

    def fetch():
        raise URLError("no route\nto the host")

    monkeypatch.setattr(data, "fetch", fetch)
    said = message(data)
    assert "download failed (URLError" in said and "is missing" in said and str(tmp_path / "empty") in said


@pytest.mark.parametrize("name", NAMES)
def test_a_download_that_breaks_off_is_noticed(make_data, tmp_path, monkeypatch, name):
    whole = make_data(name)
    data = make_data(name, root=str(tmp_path / "half"), download=True)

    def fetch():
        for number in range(4):
            source = some_file(whole, number)
            target = data.root / source.relative_to(whole.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes()[: None if number < 3 else 20])

    monkeypatch.setattr(data, "fetch", fetch)
    said = message(data)
    assert some_file(whole, 3).name in said and "cut short" in said


@pytest.mark.parametrize("name", NAMES)
def test_a_download_is_used_and_not_repeated(make_data, tmp_path, monkeypatch, name):
    whole = make_data(name)
    data = make_data(name, root=str(tmp_path / "later"), download=True)
    calls = []

    def fetch():
        calls.append(1)
        for path in whole.root.rglob("*"):
            if path.is_file():
                target = data.root / path.relative_to(whole.root)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())

    monkeypatch.setattr(data, "fetch", fetch)
    data.check()
    data.check()
    assert len(calls) == 1
    assert data.fingerprint() == whole.fingerprint()


@pytest.mark.parametrize("name", NAMES)
def test_validation_is_carved_from_training(make_data, name):
    data = make_data(name)
    train, val = data.dataset("train"), data.dataset("val")
    assert train.source is val.source
    assert len(val) == 10 and len(train) == 30
    assert not set(train.indices.tolist()) & set(val.indices.tolist())
    assert len(data.dataset("test")) == 12


def test_test_images_are_the_benchmarks_own(make_data):
    data = make_data("cifar10", image_size=32)
    images, _ = next(iter(data.test_dataloader()))
    raw = torch.from_numpy(data.load(train=False).images[:4]).permute(0, 3, 1, 2) / 255
    expected = (raw - torch.tensor(data.mean)[:, None, None]) / torch.tensor(data.std)[:, None, None]
    assert torch.allclose(images, expected, atol=1e-5)


def test_fashion_mnist_fingerprint_follows_the_content_not_the_packing(make_data, tmp_path):
    data = make_data("fashion_mnist")
    fingerprint = data.fingerprint()
    packed = data.root / "train-images-idx3-ubyte.gz"
    images = read_idx(packed)

    packed.unlink()
    write_idx(data.root / "train-images-idx3-ubyte", images)
    assert make_data("fashion_mnist").fingerprint() == fingerprint
    write_idx(data.root / "train-images-idx3-ubyte", images ^ np.uint8(1))
    assert make_data("fashion_mnist").fingerprint() != fingerprint


def test_fashion_mnist_is_found_where_torchvision_puts_it(make_data):
    data = make_data("fashion_mnist")
    fingerprint = data.fingerprint()
    raw = data.root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in data.root.glob("*-ubyte*"):
        path.rename(raw / path.name)
    moved = make_data("fashion_mnist")
    moved.check()
    assert moved.fingerprint() == fingerprint


@pytest.mark.parametrize("content", [b"", b"\x00\x00", b"<html>not found</html>", bytes([0, 0, 8, 3, 0, 0])])
def test_what_is_no_idx_file_is_said(tmp_path, content):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte is damaged"):
        read_idx(path)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="apt-get install dataset-fashion-mnist")
def test_debians_fashion_mnist():
    data = FashionMNIST(
        name="fashion_mnist",
        num_classes=10,
        image_size=64,
        batch_size=256,
        seed=0,
        workers=0,
        root=str(DEBIAN),
        download=False,
        val_images=5000,
        crop_padding=2,
    )
    data.check()
    assert [len(data.dataset(split)) for split in ("train", "val", "test")] == [55000, 5000, 10000]
    labels = data.dataset("val").source.labels[data.dataset("val").indices]
    assert np.bincount(labels).tolist() == [500] * 10
    images, _ = next(iter(data.val_dataloader()))
    assert images.shape == (256, 3, 64, 64)
    assert abs(images.mean()) < 0.1 and abs(images.std() - 1) < 0.1
