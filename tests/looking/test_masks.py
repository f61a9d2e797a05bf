"""Masks lie where objects do, and no run knows of them."""

import numpy as np
import pytest
import torch
from PIL import Image
from smallest_run import SMALLEST

from src.config import build, load_config
from src.data.base import DataError
from src.looking.masks import boxes, masked_images
from src.runs.code import code_files


@pytest.fixture(scope="module")
def digits():
    return build(load_config(*SMALLEST)["data"])


def test_scenes_are_those_that_networks_see_with_the_strokes_of_their_digit(digits):
    found = masked_images(digits, split="test", count=4)
    for number in range(4):
        scene = digits.scene(number, "test")
        assert torch.equal(found.images[number], digits.dataset("test")[number][0])
        assert torch.equal(found.regions["object"][number], scene.mask)
        x0, y0, x1, y1 = scene.box
        box = torch.zeros_like(scene.mask)
        box[y0:y1, x0:x1] = True
        assert torch.equal(found.regions["box"][number], box)
    assert not (found.regions["object"] & found.regions["fragments"]).any()
    assert found.regions["fragments"].any()


def test_no_more_images_than_there_are(digits):
    assert len(masked_images(digits, split="test", count=1000)) == digits.length("test")


def test_runs_do_not_depend_on_masks():
    assert not [file for file in code_files(load_config()) if "looking/" in file]


def test_other_masks_are_other_images(digits):
    one, other = (masked_images(digits, split=split, count=3) for split in ("val", "test"))
    assert one.digest() == masked_images(digits, split="val", count=3).digest() != other.digest()
    other.regions["object"][0, 0, 0] ^= True
    assert other.digest() != masked_images(digits, split="test", count=3).digest()


def test_a_box_of_nothing_is_nothing():
    assert not boxes(torch.zeros(2, 5, 5, dtype=torch.bool)).any()


@pytest.fixture
def folder(tmp_path):
    """Photographs of unequal sides: black, with a white rectangle, which the masks name."""
    generator = np.random.default_rng(0)
    for part in ("images", "masks", "classes/one", "classes/two"):
        (tmp_path / part).mkdir(parents=True)
    for number in range(6):
        height, width = generator.integers(90, 160, 2)
        picture = np.zeros((height, width), np.uint8)
        top, left = generator.integers(20, 40, 2)
        picture[top : top + 35, left : left + 30] = 1
        Image.fromarray(picture * 255).convert("RGB").save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(picture * (number + 1)).save(tmp_path / "masks" / f"{number}.png")
        for of in ("one", "two"):
            Image.fromarray(picture * 255).save(tmp_path / "classes" / of / f"{number}.png")
    return tmp_path


@pytest.fixture
def photos(folder):
    return build(load_config("data=folder", f"data.root={folder / 'classes'}", "data.num_classes=2")["data"])


def test_a_mask_goes_the_way_of_its_image(folder, photos):
    found = masked_images(photos, split="test", count=5, folder=folder)
    assert len(found) == 5 and set(found.regions) == {"object", "box"}
    for image, mask in zip(found.images, found.regions["object"], strict=True):
        middle = (image[0].max() + image[0].min()) / 2
        assert 0.02 < mask.float().mean() < 0.9
        assert torch.equal(mask, image[0] > middle)


def test_what_is_missing_is_said(folder, photos):
    with pytest.raises(DataError, match="doesn't say where its objects are"):
        masked_images(photos, split="test", count=2)
    with pytest.raises(DataError, match=r"no folder .*images"):
        masked_images(photos, split="test", count=2, folder=folder / "nothing")
    Image.new("L", (7, 9)).save(folder / "masks" / "0.png")
    with pytest.raises(DataError, match="is 7x9 pixels"):
        masked_images(photos, split="test", count=2, folder=folder)
    (folder / "masks" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot read"):
        masked_images(photos, split="test", count=2, folder=folder)
    (folder / "masks" / "0.png").unlink()
    with pytest.raises(DataError, match="has no mask"):
        masked_images(photos, split="test", count=2, folder=folder)
