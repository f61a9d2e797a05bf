"""The benchmark of steps, on networks so small that it takes seconds: every part, its table, its page."""

from contextlib import contextmanager

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from src import benchmark
from src.benchmarks import networks, step
from src.benchmarks.loader import images_per_second, photographs
from src.benchmarks.measure import read_table
from src.benchmarks.products import Products
from src.benchmarks.shares import KINDS, REST, kind_of, shares
from src.benchmarks.step_page import cores, said
from src.models.pointwise import Backend, Pointwise
from src.readme import ROOT
from tests.reference.published_dat import published_config

PIXELS = 128
RECORDED = ROOT / "experiments" / "benchmarks" / "step"


@pytest.fixture
def small(monkeypatch):
    """A quarter of the channels, a quarter of the pixels, a block a stage."""

    def config(family, pixels=PIXELS):
        found = published_config(networks.FAMILIES[family], "dat_tiny")
        dims = [16, 32, 64, 128] if family == "DAT-T++" else [24, 48, 96, 192]
        spec = [["N"], ["D"], ["D"], ["D"]] if family == "DAT-T++" else [["L"], ["S"], ["D"], ["D"]]
        found |= {"dims": dims, "dim_stem": dims[0], "depths": [1] * 4, "stage_spec": spec, "drop_path_rate": 0.0}
        return found | {"img_size": PIXELS, "window_sizes": [4] * 4}

    monkeypatch.setattr(networks, "published_config", config)
    monkeypatch.setattr(networks, "peer", lambda name, pixels=PIXELS: networks.ours("DAT-T", pixels=pixels))
    monkeypatch.setattr(step, "peer", networks.peer)
    monkeypatch.setattr(step, "PIXELS", PIXELS)
    monkeypatch.setattr(step, "QUICK_SCALING", ((1, 2), (PIXELS,)))
    monkeypatch.setattr(step, "PRECISIONS", ("float32",))
    monkeypatch.setattr(step, "QUICK_FILES", 3)


def test_every_part_gives_rows_and_a_page(small, tmp_path, capsys):
    assert benchmark.main(["step", "--quick", "--output", str(tmp_path)]) == 0
    rows = read_table(tmp_path / "results.csv")
    assert {row["part"] for row in rows} == set(step.PARTS)
    page = (tmp_path / "README.md").read_text()
    assert page == said(rows)
    assert page in capsys.readouterr().out
    assert {"networks.svg", "networks-dark.svg", "scaling.svg"} <= {path.name for path in tmp_path.iterdir()}
    of = {(row["family"], row["precision"], row["version"]): row for row in rows if row["part"] == "networks"}
    assert len(of) == 2 * 5
    for family in networks.FAMILIES:
        plain, again = (of[family, "float32", name]["saved_ratio"] for name in (networks.OURS, networks.RECOMPUTED))
        assert again < plain < 1
        assert of[family, "float32", networks.TRANSCRIPTION]["times_as_fast"] == 1
    found = [row["share"] for row in rows if row["part"] == "shares" and row["version"] == networks.OURS]
    assert sum(found) == pytest.approx(2, abs=1e-3)  # of two families


def test_products_are_those_of_the_step(small):
    net, images = networks.ours("DAT-T", pixels=PIXELS), torch.randn(2, 3, PIXELS, PIXELS)
    whole = networks.Step(net, images, torch.zeros(2, dtype=torch.long), "float32")
    choices = [layer.choice for layer in net.modules() if isinstance(layer, Pointwise)]
    products = Products(whole)
    assert [layer.choice for layer in net.modules() if isinstance(layer, Pointwise)] == choices, "as it was"
    with FlopCounterMode(display=False) as alone:
        products()
    counted = 0
    for layer in (layer for layer in net.modules() if isinstance(layer, Pointwise)):
        with recorded_sizes(layer) as sizes:
            whole.loss()
        counted += sum(3 * 2 * pixels * layer.weight.numel() for pixels in sizes)
    assert alone.get_total_flops() == counted > 0


@contextmanager
def recorded_sizes(layer):
    """Pixels that a layer is given, image by image together, however it is called."""
    sizes, choice = [], layer.choice

    def watched(device):
        backend = choice(device)

        def product(x, weight, bias):
            sizes.append(x.numel() // x.shape[1])
            return backend.product(x, weight, bias)

        return Backend(product, backend.gradients)

    layer.choice = watched
    yield sizes
    layer.choice = choice


def test_one_part_alone(small, tmp_path):
    assert benchmark.main(["step", "--quick", "--only", "loader", "--output", str(tmp_path)]) == 0
    assert [row["part"] for row in read_table(tmp_path / "results.csv")] == ["loader"]


def test_networks_that_compute_something_else_are_not_timed(small):
    nets = {networks.TRANSCRIPTION: networks.transcription("DAT-T"), networks.OURS: networks.ours("DAT-T")}
    images = torch.randn(1, 3, PIXELS, PIXELS)
    networks.alike(nets, images)
    wrong = nets[networks.OURS]
    wrong.stages["one"].blocks[0].attention.register_forward_hook(lambda module, given, out: 2 * out)
    with pytest.raises(RuntimeError, match="differ by"):
        networks.alike(nets, images)


def test_outside_of_a_checkout_it_says_so(monkeypatch):
    def missing(name):
        raise ImportError("No module named 'tests'")

    monkeypatch.setattr(networks, "import_module", missing)
    with pytest.raises(ValueError, match="run this in a checkout"):
        networks.transcription("DAT-T")


def test_operators_have_kinds():
    assert kind_of("aten::addmm") == "linear layers"
    assert kind_of("aten::bmm") == "attention products"
    assert kind_of("aten::gelu_backward") == "GELU"
    assert kind_of("autograd::engine::evaluate_function: AddmmBackward0") == REST
    found = shares(lambda: torch.ones(64, 64) @ torch.ones(64, 64), "cpu")
    assert sum(found.values()) == pytest.approx(1)
    assert "linear layers" in found
    assert set(found) <= {kind for kind, _ in KINDS} | {REST}


def test_the_loader_does_what_training_does(tmp_path):
    files = photographs(tmp_path, 3)
    image, _ = files[0]
    assert image.size == (500, 375)
    assert len(images_per_second(files, rounds=2)) == 2


def test_cores_follow_from_the_recorded_speed():
    row = {
        "images_per_second": 100.0,
        "images_per_second_low": 90.0,
        "images_per_second_high": 110.0,
        "kilobytes": 99.0,
    }
    text = cores(row)
    assert "10 for each thousand" in text
    assert "not a measurement" in text
    assert "107 to 142 cores" in text  # 128 images in 12 and in 9 ms


@pytest.mark.skipif(not (RECORDED / "README.md").is_file(), reason="not recorded")
def test_the_recorded_page_is_of_the_recorded_rows():
    assert (RECORDED / "README.md").read_text() == said(read_table(RECORDED / "results.csv"))
