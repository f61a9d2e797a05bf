"""What a study has found is read from its records, and only comparable runs are put together."""

import csv

import numpy as np
import pytest
from made_up import EPOCHS, STEPS, make_study

from src.reports.comparison import compare_all, compare_steps, compare_with_baseline
from src.reports.results import curves, predictions, results_below, results_of
from src.studies.table import read_table

SCORES = {"baseline": 0.7, "no_offset": 0.6, "no_bias": 0.7}


@pytest.fixture
def results(tmp_path):
    return results_of(make_study(tmp_path / "runs", SCORES, seeds=range(6), unfinished={("no_bias", 5): "failed"}))


def test_finished_runs_are_found_by_variant_and_seed(results):
    assert results.variants == tuple(SCORES)
    assert results.seeds == tuple(range(6))
    assert {name: len(runs) for name, runs in results.finished.items()} == {"baseline": 6, "no_offset": 6, "no_bias": 5}
    assert [str(state.job) for state in results.missing] == ["no_bias/seed5"]
    assert results.common_seeds("baseline", "no_bias") == (0, 1, 2, 3, 4)
    assert results.published("baseline")["top1"] == 82.0


def test_scores_are_percentages_of_right_test_images(results):
    label, predicted = predictions(results.finished["no_offset"][3])
    assert results.scores("no_offset")[3] == pytest.approx(100 * np.mean(label == predicted))


def test_runs_without_a_table_are_a_study_too(tmp_path):
    table = make_study(tmp_path / "runs", SCORES, seeds=(0, 1), unfinished={("no_bias", 1): "waiting"})
    table.path.unlink()
    found = results_below(tmp_path / "runs" / "made_up", "Why?", order=["no_offset"])
    assert found.variants == ("no_offset", "baseline", "no_bias")
    assert found.baseline == "baseline"
    assert {name: list(runs) for name, runs in found.finished.items()}["no_bias"] == [0]


@pytest.mark.parametrize("recipe", [{"epochs": 300}, {"mixup": 0.8}])
def test_runs_of_other_protocols_are_refused(tmp_path, recipe):
    make_study(tmp_path / "runs", {"baseline": 0.7})
    make_study(tmp_path / "other", {"no_offset": 0.6}, recipe=recipe)
    (tmp_path / "other" / "made_up" / "no_offset").rename(tmp_path / "runs" / "made_up" / "no_offset")
    with pytest.raises(ValueError, match=r"differ in recipe .*baseline and no_offset"):
        results_below(tmp_path / "runs" / "made_up")


def test_two_runs_of_one_name_are_refused(tmp_path):
    make_study(tmp_path / "runs", {"baseline": 0.7}, seeds=(0,))
    other = make_study(tmp_path / "other", {"baseline": 0.7}, seeds=(0,))
    folder = other.folder(other.jobs[0])
    (folder / "record.json").write_text((folder / "record.json").read_text().replace('"checksum"', '"unused"'))
    folder.rename(tmp_path / "runs" / "made_up" / "baseline" / "seed0-0123456789")
    with pytest.raises(ValueError, match="two runs of baseline/seed0"):
        results_below(tmp_path / "runs" / "made_up")


def test_no_runs_say_how_to_make_some(tmp_path):
    with pytest.raises(ValueError, match=r"no run below .*src\.study run"):
        results_below(tmp_path)


def test_curves_of_several_attempts_are_one(tmp_path):
    table = make_study(tmp_path / "runs", {"baseline": 0.7}, seeds=(0,))
    state = results_of(table).finished["baseline"][0]
    second = state.folder / "curves" / "attempt-2"
    second.mkdir()
    with (second / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["epoch", "step", "val/acc1"], ["4", 5 * STEPS - 1, "0.123"], ["5", "", "0.5"]])
    found = curves(state)["val/acc1"]
    assert [step for step, _ in found] == [STEPS * (epoch + 1) - 1 for epoch in range(EPOCHS)]
    assert found[-1][1] == 0.123, "the later attempt counts"


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"PK" + b[20:], lambda b: b"", lambda b: b"text"])
def test_damaged_files_are_as_if_absent(results, damage):
    state = results.finished["baseline"][0]
    whole = (state.folder / "predictions.npz").read_bytes()
    (state.folder / "predictions.npz").write_bytes(damage(whole))
    (state.folder / "curves" / "attempt-1" / "metrics.csv").write_bytes(b"\xff\x00,step\n\x00,1\n")
    assert predictions(state) is None
    assert curves(state) == {}


# ------------------------------------------------------------------------------------------ compared


def test_differences_are_those_of_common_seeds(results):
    no_offset, no_bias = compare_with_baseline(results)
    assert (no_offset.variant, no_bias.variant) == ("no_offset", "no_bias")
    assert no_bias.seeds == (0, 1, 2, 3, 4)
    ours, theirs = results.scores("no_bias"), results.scores("baseline")
    assert no_bias.differences == pytest.approx([ours[seed] - theirs[seed] for seed in no_bias.seeds])
    assert no_bias.paired.mean == pytest.approx(np.mean(no_bias.differences))
    assert no_offset.images.mean == pytest.approx(no_offset.paired.mean), "both count the same images"


def test_holm_counts_the_rows(results):
    # Six seeds with one sign: p = 2 / 2**6; two rows double it.
    no_offset = compare_with_baseline(results)[0]
    assert no_offset.paired.p == pytest.approx(1 / 32)
    assert no_offset.p_holm == pytest.approx(1 / 16)
    assert no_offset.verdict.word == "cannot_tell"
    alone = compare_with_baseline(
        results_of(make_study(results.table.runs / "two", {"baseline": 0.7, "no_offset": 0.6}, seeds=range(6)))
    )
    assert alone[0].verdict.word == "worse"


def test_every_variant_can_be_the_baseline(results):
    found = compare_all(results)
    assert set(found) == set(SCORES)
    forth = next(c for c in found["baseline"] if c.variant == "no_bias")
    back = next(c for c in found["no_bias"] if c.variant == "baseline")
    assert back.differences == tuple(-d for d in forth.differences)
    assert back.paired.t == pytest.approx((-forth.paired.t[1], -forth.paired.t[0]))
    assert forth.images is not None and back.images is None
    as_baseline = compare_with_baseline(results.with_baseline("no_bias"), images=False)
    assert as_baseline == found["no_bias"]


def test_an_unknown_baseline_is_refused(results):
    with pytest.raises(ValueError, match=r"no variant 'x'.*baseline, no_offset, no_bias"):
        results.with_baseline("x")


def test_a_row_without_a_common_seed_says_so(tmp_path):
    unfinished = {("no_bias", seed): "waiting" for seed in (0, 1)} | {("baseline", 2): "failed"}
    results = results_of(make_study(tmp_path, SCORES, seeds=(0, 1, 2), unfinished=unfinished))
    no_offset, no_bias = compare_with_baseline(results)
    assert len(no_offset.seeds) == 2
    assert (no_bias.paired, no_bias.p_holm, no_bias.images) == (None, None, None)
    assert "no seed" in no_bias.verdict.text


def test_other_test_images_are_not_compared_image_by_image(results):
    state = results.finished["no_offset"][0]
    label, predicted = predictions(state)
    with (state.folder / "predictions.npz").open("wb") as file:
        np.savez_compressed(file, label=np.roll(label, 1), predicted=predicted)
    no_offset, no_bias = compare_with_baseline(results)
    assert no_offset.images is None and no_offset.paired is not None
    assert no_bias.images is not None


def test_steps_are_compared_with_the_one_before(tmp_path):
    table = make_study(tmp_path, SCORES)
    assert compare_steps(results_of(table)) == ()
    table.variants["no_bias"].config["against"] = "no_offset"
    steps = compare_steps(results_of(table))
    assert [(c.variant, c.baseline) for c in steps] == [("no_offset", "baseline"), ("no_bias", "no_offset")]


def test_a_moved_table_finds_its_runs(tmp_path):
    table = make_study(tmp_path / "runs", SCORES)
    (tmp_path / "runs").rename(tmp_path / "moved")
    moved = read_table(tmp_path / "moved" / "made_up" / ".tables" / table.path.name)
    assert not results_of(moved).missing
