"""A geometry that can't work is refused in one line that names the stage, the value and a way out."""

import pytest
import torch

from src.config import build_model, load_config
from src.models.geometry import GeometryError


@pytest.fixture(scope="module")
def micro():
    return load_config("model=micro")


@pytest.fixture(scope="module")
def tiny():
    return load_config("model=dat_tiny")


def refused(cfg, stage=None, image_size=None, experiment=(), **values):
    """The message with which a changed config is refused."""
    cfg = {**cfg, "model": {**cfg["model"], "stages": {name: dict(s) for name, s in cfg["model"]["stages"].items()}}}
    if stage:
        cfg["model"]["stages"][stage] |= values
    if image_size:
        cfg["model"]["image_size"] = image_size
    with pytest.raises(GeometryError) as caught, torch.device("meta"):
        build_model(cfg)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("stage", "values", "says"),
    [
        ("one", {"window_size": 9}, ["stage one", "window_size 9", "56x56", "7 and 8"]),
        ("three", {"window_size": 8}, ["stage three", "14x14", "2 and 7"]),
        ("three", {"offset_groups": 5}, ["stage three", "offset_groups 5", "num_heads 12", "4 and 6"]),
        ("four", {"offset_groups": 0}, ["stage four", "offset_groups 0", "1 and 2"]),
        ("three", {"offset_kernel_size": 4}, ["stage three", "offset_kernel_size 4", "stride 1", "3 and 5"]),
        ("three", {"stride": 7, "offset_kernel_size": 5}, ["stage three", "offset_kernel_size 5", "stride 7", "7"]),
        ("four", {"stride": 7}, ["stage four", "stride 7", "1x1 grid of keys", "7x7", "6"]),
        ("two", {"num_heads": 5}, ["stage two", "num_heads 5", "dim 192", "4 and 6"]),
        ("two", {"attention": ["windw"]}, ["stage two", "windw", "window, shifted_window"]),
        ("two", {"attention": []}, ["stage two", "attention is empty"]),
        ("two", {"depth": 0}, ["stage two", "depth is 0"]),
        ("one", {"attention": ["spatial_reduction"], "reduction": 5}, ["stage one", "reduction 5", "56x56", "4 and 7"]),
        ("four", {"attention": ["spatial_reduction"], "reduction": 7}, ["stage four", "reduction 7", "7x7", "1"]),
        ("two", {"dimm": 3}, ["stage two", "unknown", "dimm"]),
    ],
)
def test_refusals_name_stage_value_and_way_out(tiny, stage, values, says):
    message = refused(tiny, stage, **values)
    for part in says:
        assert part in message, message


def test_a_missing_field_is_named(tiny):
    stage = dict(tiny["model"]["stages"]["two"])
    del stage["stride"]
    cfg = {**tiny, "model": {**tiny["model"], "stages": {**tiny["model"]["stages"], "two": stage}}}
    with pytest.raises(GeometryError, match=r"stage two lacks \['stride'\]"):
        build_model(cfg)


def test_an_image_that_patches_do_not_tile(tiny):
    assert "nearest image sizes that work: 224 and 256" in refused(tiny, image_size=230)


def test_a_map_too_small_to_look_around_in(micro):
    cfg = {**micro, "model": {**micro["model"], "stages": {k: dict(v) for k, v in micro["model"]["stages"].items()}}}
    for stage in cfg["model"]["stages"].values():
        stage["window_size"] = 1
    message = refused(cfg, image_size=32)
    assert "stage four: a 1x1 map is too small for deformable attention" in message


def test_one_key_is_refused_where_the_published_code_pins_it_to_a_corner(micro):
    """DAT++'s strides at 32 pixels leave one key in each stage; the published code trains that in silence."""
    message = refused(micro, "three", stride=6, offset_kernel_size=7)
    assert "stride 6 leaves a 1x1 grid of keys" in message and "nearest strides that work: 2 and 3" in message


def test_average_pooling_needs_cells_that_tile():
    cfg = load_config("model=dat_tiny", "experiment=no_offset_upstream")
    assert "nearest strides that do: 1" in refused(cfg, "four", stride=3)


def test_images_of_another_size_are_refused(micro):
    model = build_model(micro)
    side = micro["model"]["image_size"]
    with pytest.raises(ValueError, match=f"images are {side * 2}x{side * 2}, but this model is made for {side}x{side}"):
        model(torch.zeros(1, 3, side * 2, side * 2))


def test_nothing_is_built_before_all_stages_are_checked(tiny, monkeypatch):
    built = []
    monkeypatch.setattr("torch.nn.Conv2d.__init__", lambda self, *a, **k: built.append(a))
    refused(tiny, "four", window_size=4)
    assert built == []


@pytest.mark.parametrize("factor", [-1, -0.5])
def test_a_negative_range_is_refused(factor):
    with pytest.raises(ValueError, match="offset_range=unbounded"):
        build_model(load_config(f"offset_range.factor={factor}"))
