"""Every file in conf/data builds its data set."""

from pathlib import Path

import pytest

from src.config import build, load_config
from src.data.base import ImageData

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "data").glob("*.yaml"))
MANDATORY = {"folder": ["data.root=tree", "data.num_classes=3"]}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_builds(path):
    cfg = load_config(f"data={path.stem}", "seed=5", "recipe.batch_size=8", *MANDATORY.get(path.stem, []))
    data = build(cfg["data"])
    assert isinstance(data, ImageData)
    assert (data.name, data.image_size, data.batch_size, data.seed) == (path.stem, 64, 8, 5)
    assert data.num_classes == cfg["data"]["num_classes"]


@pytest.mark.parametrize(("data", "epochs"), [("digits", 10), ("cifar10", 30), ("imagenet", 300)])
def test_data_chooses_a_recipe_that_the_command_line_overrules(data, epochs):
    assert load_config(f"data={data}")["recipe"]["epochs"] == epochs
    assert load_config(f"data={data}", "recipe=imagenet_base_384")["recipe"]["epochs"] == 30


def test_what_must_be_given_is_named():
    with pytest.raises(
        ValueError, match=r"^data\.num_classes must be given: add data\.num_classes=\.\.\. to the command$"
    ):
        load_config("data=folder", "data.root=tree")


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
