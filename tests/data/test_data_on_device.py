"""Pictures made on a device are those of the loader: the same draws, and the same pixels up to rounding."""

import pytest
import torch
from test_data_lightning import fit

SMALL = ("fashion_mnist", "cifar10", "cifar100")
SPLITS = ("train", "val", "test")
META = torch.device("meta")


def in_order(data, split, numbers):
    images, labels = zip(*(data.dataset(split)[number] for number in numbers), strict=True)
    return torch.stack(images), torch.tensor(labels)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on the number of workers
def test_training_on_scenes_that_stay_on_the_device_sees_the_same_bits(make_data, tmp_path):
    data = make_data("digits")
    for split in ("train", "val"):
        data._on_device[split] = data.make_on_device(split, torch.device("cpu"))  # as a GPU would make it
    data.make_dataset = lambda split: pytest.fail("the loader rendered")
    lengths = {split: len(data._on_device[split]) for split in ("train", "val")}
    data.length, data.dataset = lengths.get, lambda split: data._on_device[split]
    assert fit(data, tmp_path / "there") == fit(make_data("digits"), tmp_path / "here")


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("image_size", [None, 48])
def test_small_images_are_the_loaders(make_data, name, split, image_size):
    """Of the second epoch, with its crops and flips. Resized bytes are Pillow's, but for ties in a few per cent."""
    data = make_data(name)
    data.image_size = image_size or data.side
    length = data.length(split)
    numbers = torch.arange(length, 2 * length) if split == "train" else torch.arange(length)
    images, labels = data.make_on_device(split, torch.device("cpu")).batch(numbers)
    expected, expected_labels = in_order(data, split, numbers.tolist())
    assert torch.equal(labels, expected_labels)
    steps = (images - expected).abs() * torch.tensor(data.std)[:, None, None] * 255
    assert steps.max() < (2.01 if image_size else 0.01) and (steps > 0.5).float().mean() < 0.04


def test_images_without_padding_are_only_mirrored(make_data):
    data = make_data("fashion_mnist", crop_padding=0, image_size=28)
    images, _ = data.make_on_device("train", torch.device("cpu")).batch(torch.arange(8))
    torch.testing.assert_close(images, in_order(data, "train", range(8))[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["digits", *SMALL])
@pytest.mark.parametrize("split", SPLITS)
def test_everything_is_made_on_the_device(make_data, name, split):
    """The meta device refuses to be mixed with tensors of the CPU."""
    images, labels = make_data(name, image_size=40).make_on_device(split, META).batch(torch.arange(5))
    assert images.device == labels.device == META
    assert images.shape == (5, 3, 40, 40) and labels.shape == (5,) and images.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["digits", *SMALL])
def test_a_gpu_makes_what_the_cpu_makes(make_data, name):
    data = make_data(name)
    for split in SPLITS:
        there, here = (data.make_on_device(split, torch.device(d)).batch(torch.arange(10)) for d in ("cuda", "cpu"))
        torch.testing.assert_close(there[0].cpu(), here[0], rtol=1e-4, atol=0.02 if name != "digits" else 1e-4)
        assert torch.equal(there[1].cpu(), here[1])


def test_folders_of_images_stay_with_the_loader(make_data):
    assert make_data("folder").make_on_device("train", META) is None
