"""Every file in conf/data builds its data set."""

from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from src.data.base import ImageData

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "data").glob("*.yaml"))
SURROUNDINGS = {"model": {"image_size": 64}, "recipe": {"batch_size": 8}, "seed": 5}
MANDATORY = {"folder": {"root": "tree", "num_classes": 3}}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_builds(path):
    config = OmegaConf.create(SURROUNDINGS | {"data": OmegaConf.load(path)})
    config.data.update(MANDATORY.get(path.stem, {}))
    data = hydra.utils.instantiate(config.data)
    assert isinstance(data, ImageData)
    assert (data.name, data.image_size, data.batch_size, data.seed) == (path.stem, 64, 8, 5)
    assert data.num_classes == config.data.num_classes


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_says_what_it_is(path):
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert comment[0].startswith(f"# {path.stem}: ")
    for word in ("Size:", "Licence:", "Get it:"):
        assert any(line.startswith(f"# {word}") for line in comment)


def test_every_data_set_has_a_config():
    assert {path.stem for path in CONFIGS} == {
        "cifar10",
        "cifar100",
        "digits",
        "elpv",
        "fashion_mnist",
        "folder",
        "imagenet",
    }
