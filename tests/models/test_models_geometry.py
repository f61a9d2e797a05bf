"""A geometry that can't work is refused in one line that names the stage, the value and a way out."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.config import build, build_model, load_config
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
        ("one", {"window_size": 0}, ["stage one", "window_size is 0"]),
        (
            "one",
            {"attention": ["neighborhood"], "neighborhood_size": 4},
            ["stage one", "neighborhood_size 4", "3 and 5"],
        ),
        ("one", {"attention": ["average_pooling"], "neighborhood_size": 4}, ["stage one", "size 4", "3 and 5"]),
        (
            "one",
            {"attention": ["deformable_convolution"], "offset_groups": 5},
            ["offset_groups 5", "dim 96", "4 and 6"],
        ),
        ("three", {"offset_groups": 5}, ["stage three", "offset_groups 5", "num_heads 12", "4 and 6"]),
        ("four", {"offset_groups": 0}, ["stage four", "offset_groups 0", "1 and 2"]),
        ("three", {"offset_kernel_size": 4}, ["stage three", "offset_kernel_size 4", "stride 1", "3 and 5"]),
        (
            "three",
            {"stride": 2, "offset_kernel_size": 1},
            ["stage three", "offset_kernel_size 1", "stride 2", "2 and 3"],
        ),
        ("three", {"stride": 7, "offset_kernel_size": 5}, ["stage three", "offset_kernel_size 5", "stride 7", "7"]),
        ("four", {"stride": 7}, ["stage four", "stride 7", "1x1 grid of keys", "7x7", "6"]),
        ("two", {"num_heads": 5}, ["stage two", "num_heads 5", "dim 192", "4 and 6"]),
        ("two", {"attention": ["windw"]}, ["stage two", "windw", "window, shifted_window"]),
        ("two", {"attention": []}, ["stage two", "attention is empty"]),
        ("two", {"depth": 0}, ["stage two", "depth is 0"]),
        ("four", {"attention": ["spatial_reduction"], "reduction": 7}, ["stage four", "reduction 7", "7x7", "5 and 6"]),
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


def test_what_a_size_leaves_no_keys_is_refused_when_it_comes(micro):
    model = build_model(micro)
    with pytest.raises(GeometryError, match="images of 32x40 pixels: stage four: a 1x2 map is too small"):
        model(torch.zeros(1, 3, 32, 40))
    assert model(torch.zeros(1, 3, 40, 40)).shape == (1, 10)


def test_nothing_is_built_before_all_stages_are_checked(tiny, monkeypatch):
    built = []
    monkeypatch.setattr("torch.nn.Conv2d.__init__", lambda self, *a, **k: built.append(a))
    refused(tiny, "four", num_heads=5)
    assert built == []


@pytest.mark.parametrize("factor", [-1, -0.5])
def test_a_negative_range_is_refused(factor):
    with pytest.raises(ValueError, match="offset_range=unbounded"):
        build_model(load_config(f"offset_range.factor={factor}"))


KINDS = [kind for kind in load_config()["attention"] if kind != "deformable"]
SMALL = st.integers(1, 9)
SIDES = st.integers(8, 80)  # pixels
HEADS = st.sampled_from([1, 2, 3, 4, 6])


@st.composite
def stage_records(draw):
    """A stage of any geometry; five of six would be legal on a map that is large enough."""
    record = {
        "dim": draw(st.sampled_from([12, 24])),
        "depth": 2,
        "num_heads": draw(HEADS),
        "attention": ["deformable", draw(st.sampled_from(KINDS))],
        "window_size": draw(SMALL),
        "neighborhood_size": draw(SMALL),
        "offset_groups": draw(HEADS),
        "stride": draw(st.integers(1, 4)),
        "offset_kernel_size": draw(SMALL),
        "reduction": draw(st.integers(1, 4)),
    }
    if draw(st.integers(0, 5)):
        record["neighborhood_size"] |= 1
        record["offset_groups"] = math.gcd(record["offset_groups"], record["num_heads"])
        stride, kernel = record["stride"], record["offset_kernel_size"]
        record["offset_kernel_size"] = draw(st.sampled_from([max(kernel | 1, stride | 1), stride]))
    return record


@st.composite
def networks(draw):
    """A small network of any geometry, legal or not, and the size of an image, which need not be its own."""
    values = {
        "stem": draw(st.sampled_from(["patch", "overlapped"])),
        "downsampling": draw(st.sampled_from(["patch", "overlapped"])),
        "offset": draw(st.sampled_from(["learned", "zero"])),
        "offset_range": draw(st.sampled_from(["bounded", "bounded_steps", "unbounded", "tanh_positions", "clamped"])),
        "reference_grid": draw(st.sampled_from(["published", "aligned", "shifted"])),
        "sampling": draw(st.sampled_from(["bilinear", "average_pool"])),
        "position_bias": draw(st.sampled_from(["relative", "fixed", "continuous", "none"])),
    }
    stages = {name: draw(stage_records()) for name in ("one", "two")}
    sizes = {"image_size": (draw(SIDES), draw(SIDES)), "patch_size": draw(st.sampled_from([2, 2, 2, 4, 4, 3]))}
    return values, stages, sizes, (draw(SIDES), draw(SIDES))


CONFIGS = {}


def configured(values):
    """Composing a config takes longer than running a small network."""
    key = tuple(values.values())
    if key not in CONFIGS:
        CONFIGS[key] = load_config(*(f"{group}={option}" for group, option in values.items()))["model"]
    return CONFIGS[key]


def runs_or_is_refused(case):
    """Whether a network works, at its own size and another: finite outputs and gradients, or one line."""
    values, stages, sizes, other = case
    model = {k: v for k, v in configured(values).items() if k not in ("name", "weights")}
    try:
        torch.manual_seed(0)
        net = build({**model, **sizes, "table_image_size": sizes["image_size"], "num_classes": 3, "stages": stages})
        for side in (sizes["image_size"], other):
            y = net(torch.randn(2, 3, *side))
            assert y.shape == (2, 3) and y.isfinite().all()
            y.square().sum().backward()
            assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    except GeometryError as error:
        assert "\n" not in str(error) and ("stage" in str(error) or "patch_size" in str(error))
        return False
    return True


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_every_geometry_works_or_is_refused(case):
    runs_or_is_refused(case)
