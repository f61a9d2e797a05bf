"""Neighborhood attention gives what its definition, the published code and NATTEN give, on any map."""

import csv
import runpy
import sys
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest
import torch
from golden import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, below, error, names, tensors
from torch.utils.flop_counter import FlopCounterMode

from src.models.attention import neighborhood
from src.models.attention.neighborhood import (
    NattenNeighborhoodAttention,
    Neighborhood,
    NeighborhoodAttention,
    natten_with_bias,
)
from src.models.geometry import GeometryError
from src.models.stage import Stage

STAGE = Stage(
    name="three",
    map_size=(12, 8),
    dim=24,
    depth=1,
    num_heads=3,
    attention=("neighborhood",),
    window_size=4,
    neighborhood_size=5,
    offset_groups=3,
    stride=2,
    offset_kernel_size=5,
    reduction=2,
)
LINEAR = [(*part, what) for part in (("to_qkv", "qkv"), ("proj", "proj")) for what in ("weight", "bias")]
MAPS = [(1, 1), (4, 5), (5, 7), (6, 8), (7, 7), (8, 14), (9, 3), (13, 16), (22, 15)]  # smaller than 7, equal, ragged
CASES = [(size, neighborhood_size) for size, neighborhood_size in product(MAPS, (1, 3, 5, 7))]


def nearby(pixel, length, kernel_size):
    """The pixels of an axis that one of them attends to: the window round it, moved inwards at the ends."""
    span = min(kernel_size, length)
    first = min(max(pixel - kernel_size // 2, 0), length - span)
    return slice(first, first + span)


# The definition, written as the two functions of NATTEN up to 0.17.5, whose documented arguments these are.
def na2d_qk(query, key, kernel_size, dilation=1, additional_keys=None, is_causal=False, rpb=None):
    """(B, heads, H, W, d) twice to scores (B, heads, H, W, keys)."""
    assert dilation == 1 and additional_keys is None and not is_causal
    height, width = query.shape[2:4]
    scores = []
    for y, x in product(range(height), range(width)):
        rows, columns = nearby(y, height, kernel_size), nearby(x, width, kernel_size)
        score = torch.einsum("bhd,bhyxd->bhyx", query[:, :, y, x], key[:, :, rows, columns])
        dy, dx = (s.start - pixel + kernel_size - 1 for s, pixel in ((rows, y), (columns, x)))
        score = score + rpb[:, dy : dy + score.shape[2], dx : dx + score.shape[3]]
        scores.append(score.flatten(2))
    return torch.stack(scores, dim=2).unflatten(2, (height, width))


def na2d_av(attn, value, kernel_size, dilation=1, additional_values=None, is_causal=False):
    """Weights (B, heads, H, W, keys) and values (B, heads, H, W, d) to the map of their sums."""
    assert dilation == 1 and additional_values is None and not is_causal
    height, width = value.shape[2:4]
    sums = []
    for y, x in product(range(height), range(width)):
        values = value[:, :, nearby(y, height, kernel_size), nearby(x, width, kernel_size)]
        sums.append(torch.einsum("bhk,bhkd->bhd", attn[:, :, y, x], values.flatten(2, 3)))
    return torch.stack(sums, dim=2).unflatten(2, (height, width))


def by_definition(attention, x):
    b, _, height, width = x.shape
    q, k, v = attention.to_qkv(x).reshape(b, 3, attention.num_heads, -1, height, width).movedim(3, -1).unbind(1)
    size = attention.neighborhood_size
    weights = na2d_qk(q * q.shape[-1] ** -0.5, k, size, rpb=attention.bias_table).softmax(dim=-1)
    return attention.proj(na2d_av(weights, v, size).movedim(-1, 2).reshape(x.shape))


def build(kind=NeighborhoodAttention, dtype=torch.float64, **given):
    torch.manual_seed(0)
    attention = kind(**{"dim": 6, "num_heads": 2, "neighborhood_size": 3} | given).to(dtype)
    torch.nn.init.normal_(attention.bias_table)  # the table begins near zero; a larger one shows
    return attention


def results(attention, x, call=None):
    """Output, and gradients of the input and of all parameters by name, of a loss that tells pixels apart."""
    x = x.clone().requires_grad_()
    attention.zero_grad()
    y = (call or attention)(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=y.device).view(y.shape)).sum().backward()
    return {"output": y.detach(), "input": x.grad} | {name: p.grad for name, p in attention.named_parameters()}


@pytest.mark.parametrize(("size", "neighborhood_size"), CASES)
def test_is_the_definition(size, neighborhood_size):
    attention = build(neighborhood_size=neighborhood_size)
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    ours, defined = results(attention, x), results(attention, x, lambda x: by_definition(attention, x))
    for name, expected in defined.items():
        torch.testing.assert_close(ours[name], expected, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("name", names("v2.neighborhood*"))
def test_published_module_matches(name):
    golden, metadata = tensors(name)
    config, published = metadata["config"], below(golden, "param.")
    attention = NeighborhoodAttention(config["dim"], config["num_heads"], neighborhood_size=config["kernel_size"])
    ours = {"bias_table": "rpb"} | {f"{of}.{what}": f"{theirs}.{what}" for of, theirs, what in LINEAR}
    state = attention.state_dict()
    attention.load_state_dict({name: published[theirs].reshape(state[name].shape) for name, theirs in ours.items()})

    x = golden["input"].clone().requires_grad_()
    y = attention(x)
    (y * golden["cotangent"]).sum().backward()
    assert error(y, golden["output"]) < OUTPUT_TOLERANCE
    assert error(x.grad, golden["grad.input"]) < GRADIENT_TOLERANCE
    for name, parameter in attention.named_parameters():
        gradient, expected = parameter.grad, golden[f"grad.{ours[name]}"]
        gradient = gradient.reshape(expected.shape)
        if name == "to_qkv.bias":
            # Softmax doesn't see a constant added to all keys: exactly zero but for rounding, in both.
            keys = slice(config["dim"], 2 * config["dim"])
            assert max(g[keys].abs().max() for g in (gradient, expected)) < GRADIENT_TOLERANCE * expected.abs().max()
        assert error(gradient, expected) < GRADIENT_TOLERANCE, name


@pytest.mark.parametrize(("size", "neighborhood_size"), [((4, 3), 5), ((8, 4), 3)])
def test_gradients(size, neighborhood_size):
    attention = build(dim=4, neighborhood_size=neighborhood_size)
    inputs = [torch.randn(1, 2, *size, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def of_table(table, *inputs):
        return torch.func.functional_call(attention, {"bias_table": table}, inputs)

    attention.forward = attention.attend_nearby
    assert torch.autograd.gradcheck(of_table, (attention.bias_table, *inputs))


def test_a_map_that_fits_in_the_neighborhood_is_plain_attention_to_all_of_it():
    attention, x = build(neighborhood_size=7), torch.randn(2, 6, 4, 3, dtype=torch.float64)
    torch.nn.init.zeros_(attention.bias_table)
    q, k, v = (t.flatten(3).mT for t in attention.to_qkv(x).reshape(2, 3, 2, 3, 4, 3).unbind(1))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v).mT
    torch.testing.assert_close(attention(x), attention.proj(out.reshape(x.shape)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_every_parameter_and_large_scores_stay_finite(dtype):
    attention = build(dtype=torch.float32, neighborhood_size=7)
    x = 100 * torch.randn(2, 6, 9, 15).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        y = attention(x)
    y.float().square().mean().backward()
    assert y.shape == x.shape and y.isfinite().all()
    assert [n for n, p in attention.named_parameters() if not p.grad.any() or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize(("size", "neighborhood_size"), [*CASES, ((56, 56), 7), ((24, 40), 9)])
def test_masked_macs_are_what_is_counted_beyond_the_definition(size, neighborhood_size):
    height, width = size
    with torch.device("meta"):
        attention, x = NeighborhoodAttention(12, 2, neighborhood_size=neighborhood_size), torch.zeros(1, 12, *size)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        attention(x)
    projections = 4 * 12 * 12 * height * width
    keys = min(neighborhood_size, height) * min(neighborhood_size, width)
    attended = 2 * 12 * height * width * keys
    masked = attention.masked_macs(height, width)
    assert counter.get_total_flops() // 2 == projections + attended + masked


@pytest.mark.parametrize("value", [0, 4, -1, 4.5])
def test_a_neighborhood_without_a_middle_is_refused(value):
    stage = Stage(**{**vars(STAGE), "neighborhood_size": value})
    with pytest.raises(GeometryError, match=rf"stage three: neighborhood_size {value} .* odd .*: \d") as refused:
        Neighborhood().check(stage)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("size", [1, 3, 21])
def test_every_odd_neighborhood_is_built_on_any_map(size):
    stage = Stage(**{**vars(STAGE), "neighborhood_size": size})
    Neighborhood().check(stage)
    attention = Neighborhood().build(stage)
    assert attention(torch.randn(1, 24, 12, 8)).shape == (1, 24, 12, 8)


@pytest.fixture
def natten_as_documented(monkeypatch):
    """Stands in for NATTEN up to 0.17.5: the same functions, written as loops, that note their calls."""
    calls = []
    functions = ModuleType("natten.functional")
    for function in (na2d_qk, na2d_av):

        def noted(*args, _function=function, **kwargs):
            calls.append(_function.__name__)
            return _function(*args, **kwargs)

        setattr(functions, function.__name__, noted)
    monkeypatch.setitem(sys.modules, "natten", ModuleType("natten"))
    monkeypatch.setitem(sys.modules, "natten.functional", functions)
    monkeypatch.setattr(neighborhood, "NATTEN_DEVICES", ("cpu",))
    return calls


def test_natten_is_used_as_documented(natten_as_documented):
    attention = Neighborhood().build(STAGE).double()
    assert type(attention) is NattenNeighborhoodAttention
    torch.nn.init.normal_(attention.bias_table)
    x = torch.randn(2, 24, *STAGE.map_size, dtype=torch.float64)
    theirs = results(attention, x)
    assert natten_as_documented == ["na2d_qk", "na2d_av"]
    attention.__class__ = NeighborhoodAttention
    for name, expected in results(attention, x).items():
        torch.testing.assert_close(theirs[name], expected)


@pytest.mark.parametrize("where", ["small map", "one pixel", "meta"])
def test_what_natten_cannot_do_is_done_by_pytorch(natten_as_documented, where):
    attention = build(NattenNeighborhoodAttention, neighborhood_size=1 if where == "one pixel" else 5)
    x = torch.randn(1, 6, 9, 4 if where == "small map" else 9, dtype=torch.float64)
    if where == "meta":
        attention, x = attention.to("meta"), x.to("meta")
    assert attention(x).shape == x.shape
    assert natten_as_documented == []


@pytest.mark.parametrize("version", ["none", "without a bias"])
def test_without_natten_or_its_bias_it_is_pytorch(monkeypatch, version):
    found = None if version == "none" else ModuleType("natten.functional")  # None in sys.modules: an ImportError
    monkeypatch.setitem(sys.modules, "natten", ModuleType("natten"))
    monkeypatch.setitem(sys.modules, "natten.functional", found)
    assert natten_with_bias() is None
    assert type(Neighborhood().build(STAGE)) is NeighborhoodAttention


@pytest.mark.parametrize(("size", "neighborhood_size"), [((7, 7), 7), ((14, 14), 7), ((9, 12), 5), ((23, 16), 3)])
def test_agrees_with_natten(monkeypatch, size, neighborhood_size):
    if natten_with_bias() is None:
        pytest.skip("no NATTEN that has a position bias (up to 0.17.5) and that works with this PyTorch is installed")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    monkeypatch.setattr(neighborhood, "NATTEN_DEVICES", (device,))
    attention = build(NattenNeighborhoodAttention, torch.float32, dim=16, neighborhood_size=neighborhood_size)
    attention, x = attention.to(device), torch.randn(2, 16, *size, device=device)
    theirs = results(attention, x)
    attention.__class__ = NeighborhoodAttention
    for name, expected in results(attention, x).items():
        torch.testing.assert_close(theirs[name], expected, rtol=1e-4, atol=1e-4)


def test_the_recorded_benchmark_is_its_page():
    folder = Path(__file__).parents[2] / "experiments" / "neighborhood"
    benchmark = runpy.run_path(str(folder / "benchmark.py"))
    with (folder / "results.csv").open() as file:
        assert benchmark["page"](list(csv.DictReader(file))) == (folder / "README.md").read_text()
    x = torch.randn(1, 64, 9, 8)
    expected, *others = (module(x) for name, module in benchmark["contestants"](64, 2).items() if name != "window")
    assert len(others) >= 2
    for other in others:
        torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-5)
