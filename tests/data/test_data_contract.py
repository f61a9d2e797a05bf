"""What the trainer relies on, for every data set."""

import random
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from src.data.base import DataError

# A new data set joins the list (and conftest.py) and inherits the contract.
NAMES = ["digits", "fashion_mnist", "cifar10", "cifar100", "folder", "imagenet", "elpv"]
pytestmark = pytest.mark.parametrize("name", NAMES)


def batches(loader, count=5):
    """The first batches: an epoch where the data set is a fake."""
    return list(islice(loader, count))


def train_batches(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return batches(loader)


def same(left, right):
    return len(left) == len(right) and all(
        torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in zip(left, right, strict=True)
    )


def on_rank(data, rank, world_size):
    on_cpu = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, strategy=on_cpu)
    return data


def numbers(loader):
    return list(loader.sampler)


def test_batches_are_normalised_images_and_labels(make_data, name):
    data = make_data(name)
    data.check()
    data.setup()
    assert data.name == name
    assert len(data.class_names) == data.num_classes
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        images, labels = next(iter(loader))
        assert images.shape == (4, 3, 32, 32) and images.dtype == torch.float32
        assert labels.shape == (4,) and labels.dtype == torch.int64
        assert labels.min() >= 0 and labels.max() < data.num_classes
        assert -5 < images.min() < images.max() < 7  # not 0..255


def test_training_follows_the_seed(make_data, name):
    first = train_batches(make_data(name, seed=1))
    assert same(first, train_batches(make_data(name, seed=1)))
    assert not same(first, train_batches(make_data(name, seed=2)))


def test_validation_and_test_do_not_follow_the_seed(make_data, name):
    one, two = make_data(name, seed=1), make_data(name, seed=2)
    assert same(batches(one.val_dataloader()), batches(two.val_dataloader()))
    assert same(batches(one.test_dataloader()), batches(two.test_dataloader()))


def test_every_epoch_shows_something_new(make_data, name):
    data = make_data(name)
    first, again = train_batches(data, epoch=0), train_batches(data, epoch=1)
    assert not same(first, again)
    # Not only another order: the same item looks different.
    dataset = data.dataset("train")
    assert any(not torch.equal(dataset[index][0], dataset[len(dataset) + index][0]) for index in range(4))


def test_workers_change_nothing(make_data, name):
    alone, helped = make_data(name, workers=0), make_data(name, workers=2)
    assert same(train_batches(alone, epoch=3), train_batches(helped, epoch=3))


def test_persistent_workers_notice_the_epoch(make_data, name):
    loader = make_data(name, workers=2).train_dataloader()
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        assert same(batches(loader), train_batches(make_data(name), epoch=epoch))


def test_ranks_share_out_the_global_batch(make_data, name):
    whole = train_batches(make_data(name, batch_size=4), epoch=2)
    for rank in (0, 1):
        part = train_batches(on_rank(make_data(name, batch_size=2), rank, world_size=2), epoch=2)
        assert same(part, [(images[rank::2], labels[rank::2]) for images, labels in whole])


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_sees_every_item_once(make_data, name, split):
    data = make_data(name)
    seen = []
    for rank in range(3):
        seen += numbers(getattr(on_rank(data, rank, world_size=3), f"{split}_dataloader")())
    assert sorted(seen) == list(range(len(data.dataset(split))))


def test_global_random_state_is_left_alone(make_data, name):
    data = make_data(name)
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    dataset = data.dataset("train")
    dataset[0], data.dataset("val")[0]
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected


def test_an_item_does_not_depend_on_what_was_asked_before(make_data, name):
    dataset = make_data(name).dataset("train")
    last = len(dataset) * 10**9 + 3  # no overflow at any epoch
    first = dataset[last][0]
    dataset[0], dataset[5], torch.rand(3)
    assert torch.equal(dataset[last][0], first)


def test_test_split_is_left_alone_until_asked_for(make_data, name):
    data = make_data(name)
    data.setup()
    data.train_dataloader(), data.val_dataloader()
    assert "test" not in data._datasets
    data.test_dataloader()
    assert "test" in data._datasets


def test_fingerprint_is_of_the_data_alone(make_data, name):
    fingerprint = make_data(name).fingerprint()
    assert len(fingerprint) >= 8 and int(fingerprint, 16) >= 0
    assert fingerprint == make_data(name, seed=3, batch_size=2, workers=1, image_size=48).fingerprint()


def test_fingerprint_follows_the_split(make_data, name):
    change = {
        "digits": {"fragment_size": 2},
        "folder": {"val_fraction": 0.3},
        "elpv": {"val_fraction": 0.3},
    }.get(name, {"val_images": 5})
    assert make_data(name).fingerprint() != make_data(name, **change).fingerprint()


def test_wrong_number_of_classes_is_named(make_data, name):
    with pytest.raises(DataError, match=r"7") as error:
        make_data(name, num_classes=7).check()
    assert "\n" not in str(error.value)
