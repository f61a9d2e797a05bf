"""The operator's benchmark compares versions of one function, and writes what it found."""

import gc

import pytest
import torch

from src.benchmarks import op
from src.benchmarks.measure import read_table
from src.benchmarks.options import Options

SMALL = op.Shape(7, 14, 16, 4, 2, 2, rounds=2)


@pytest.fixture
def quick_collections():
    """The measuring code collects garbage at each turn, and what other tests left behind is much."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("grid", op.GRIDS)
def test_the_published_formula_is_the_definition(grid):
    arguments = [t.detach().double() for t in op.example(SMALL, grid, torch.float32, "cpu")]
    expected = op.by_kernel("reference")(*arguments)
    torch.testing.assert_close(op.published(*arguments), expected)


def test_the_score_function_is_the_bias():
    """Also where points lie off the map."""
    _, _, _, table, points, queries = (
        t.detach().double() for t in op.example(SMALL, "published", torch.float32, "cpu")
    )
    points[0, 0, 0] = 3.0
    points[1, 1, :, 2] -= 0.7
    score = op.score_function(table, points, queries, 4)
    b, h, i, k = torch.meshgrid(*(torch.arange(n) for n in (2, 4, 98, 98)), indexing="ij")
    bias = score(torch.zeros(()).double(), b, h, i, k)
    dense = op.BiasTable(table, points, queries, op.bilinear.grid_sample, "auto").dense()
    torch.testing.assert_close(bias, dense)


def test_what_does_not_fit_is_left_out(quick_collections, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(op, "SHAPES", (SMALL,))
    monkeypatch.setattr(op, "_memory", lambda device: 40 * SMALL.scores)
    op.run(Options(output=tmp_path, quick=True, threads=1, parts=("core",)))
    rows = read_table(tmp_path / "results.csv")
    assert {row["version"] for row in rows} == {"reference", "dense", "fused", "auto"}
    assert {row["against"] for row in rows} == {"reference"}
    assert "published left out: it needs about" in capsys.readouterr().out


def test_windows_are_attended_to_alone():
    q, k, v, *rest = (t.detach() for t in op.example(SMALL, "published", torch.float32, "cpu"))
    right = torch.arange(98) % 14 >= 7
    moved = torch.where(right[:, None], 2 * k, k)
    before, after = (op.windowed(SMALL)(q, keys, v, *rest) for keys in (k, moved))
    torch.testing.assert_close(before[:, :, ~right], after[:, :, ~right])
    assert not torch.allclose(before, after)


def test_it_writes_rows_a_page_and_figures(quick_collections, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(op, "SHAPES", (SMALL,))
    monkeypatch.setattr(op, "SIDES", (7, 14, 21))
    op.run(Options(output=tmp_path, quick=True, threads=1, parts=("core", "scaling")))
    rows = read_table(tmp_path / "results.csv")
    core = [row for row in rows if row["part"] == "core" and row["grid"] == "DAT++"]
    assert [row["version"] for row in core[:5]] == ["published", "reference", "dense", "fused", "auto"]
    published, reference, dense, fused, auto = core[:5]
    assert published["times_as_fast"] == 1 and fused["kernel"] == "fused" and auto["kernel"] == "dense"
    assert fused["saved_mb"] < dense["saved_mb"] < reference["saved_mb"] < published["saved_mb"]
    assert fused["saved_mb"] < published["saved_mb"] / 2
    sides = {row["side"] for row in rows if row["part"] == "scaling"}
    assert sides == {7, 14}  # --quick leaves the largest out
    assert {p.name for p in tmp_path.iterdir()} >= {"README.md", "core.svg", "core-dark.svg", "scaling.png"}
    assert (tmp_path / "README.md").read_text().strip() == capsys.readouterr().out.strip()
