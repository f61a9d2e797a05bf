"""The recorded simulation is that of this code, and its page says what it recorded."""

import importlib.util

import pytest

from src.readme import ROOT

FOLDER = ROOT / "experiments" / "statistics"


@pytest.fixture(scope="module")
def simulate():
    spec = importlib.util.spec_from_file_location("simulate", FOLDER / "simulate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recorded(simulate):
    return {(row["noise"], int(row["seeds"]), row["measure"]): float(row["rate"]) for row in simulate.read_rows()}


def test_a_small_cell_again(simulate, recorded):
    differences = simulate.studies("skewed", 6)
    again = simulate.test_rates(differences) | simulate.verdict_rates(differences)
    assert again == {name: recorded["skewed", 6, name] for name in again}


def test_the_page_holds_the_recorded_tables(simulate):
    page = (FOLDER / "README.md").read_text()
    assert simulate.with_tables(page, simulate.read_rows()) == page
    assert page.count("| normal | 8 |") == 3 and page.count("| seeds differ | 8 |") == 1


def test_normal_differences_keep_what_is_promised(simulate):
    """2000 studies know a rate of 5 % to 1 point (two standard errors)."""
    differences = simulate.studies("normal", 8)
    rates = simulate.test_rates(differences)
    assert rates["sign flip, any of 6"] <= 0.06
    assert rates["sign flip, one comparison"] == pytest.approx(12 / 256, abs=0.01), "the largest share below 0.05"
    first = differences[:, 0]
    intervals = simulate.student_t(first)
    covered = ((intervals[:, 0] <= 0) & (intervals[:, 1] >= 0)).mean()
    assert covered == pytest.approx(0.95, abs=0.015)


def test_studies_are_as_described(simulate):
    for noise in simulate.NOISES:
        differences = simulate.studies(noise, 4)
        assert differences.shape == (2000, 6, 4)
        assert differences.mean() == pytest.approx(0, abs=0.05)
        assert differences.var() == pytest.approx(1, rel=0.3)
    differences = simulate.studies("normal", 4)
    assert (differences[:, 0] * differences[:, 1]).mean() == pytest.approx(0.5, abs=0.05), "they share the baseline"
