"""The rule says what it was fixed to say, and what is kept of a study says the same as its runs."""

import numpy as np
import pytest

from src.looking import page, rows
from src.looking.findings import CLAIMS, find, findings, judge_all, observation
from src.looking.quantities import MEASURES, OBJECT, STATISTICS
from src.looking.runs import Images, Measured

SEEDS, IMAGES = 4, 60


def values(shift=0.0, *, seeds=SEEDS, spread=0.2, noise=1.0, key=0):
    generator = np.random.default_rng(key)
    return shift + spread * generator.standard_normal((seeds, 1)) + noise * generator.standard_normal((seeds, IMAGES))


def statistics(**shifts):
    return np.stack([values(shifts.get(name.split()[0], 0.0), key=at) for at, name in enumerate(STATISTICS)], -1)


def test_what_is_far_above_0_holds_and_what_is_far_below_is_reversed():
    words = judge_all(findings(statistics(farther=3, still=-3, points=3)))
    assert words == {"farther": "holds", "still": "reversed", "gather": "holds", "attend": "not shown"}
    assert observation(words) == "it holds in its direction"


def test_all_statistics_of_a_claim_must_agree():
    found = statistics(points=3)
    found[..., list(STATISTICS).index("points above other images")] -= 3
    assert judge_all(findings(found))["gather"] == "not shown"


def test_two_seeds_show_nothing():
    assert set(judge_all(findings(statistics(farther=9, still=9, points=9, mass=9)[:2])).values()) == {"not shown"}


def test_both_seeds_and_images_must_allow_it():
    by_seeds = find(values(0.3, spread=2.0, noise=0.01))  # seeds disagree
    by_images = find(np.repeat(values(0.1, seeds=1, spread=0, noise=2.0), SEEDS, axis=0))  # images do
    assert by_seeds.over_seeds[0] < 0
    assert by_images.over_seeds[0] > 0 > by_images.over_both[0] or by_images.over_both[1] < by_images.over_seeds[0]
    assert by_images.over_both[1] - by_images.over_both[0] > 0.5


def test_images_where_it_is_not_defined_are_left_out():
    some = values(1.0)
    some[:, ::3] = np.nan
    assert find(some).images == IMAGES * 2 // 3
    assert find(some).mean == pytest.approx(np.nanmean(some))
    some[:, 1:] = np.nan
    assert find(some) is None


def test_lengths_beyond_100_pixels_are_no_trouble():
    one = find(250 + values())
    assert one.over_seeds[0] < 250 < one.over_seeds[1]


def test_of_networks_that_look_anywhere_few_are_said_to_look_at_objects():
    studies = 200
    found = [find(values(seeds=6, spread=0.3, key=1000 + study)) for study in range(studies)]
    said = sum(min(*one.over_seeds, *one.over_both) > 0 or max(*one.over_seeds, *one.over_both) < 0 for one in found)
    assert said <= 0.05 * studies + 2 * np.sqrt(0.05 * 0.95 * studies)


@pytest.mark.parametrize(
    ("holding", "said"),
    [
        (("gather", "still", "farther"), "it holds"),
        (("gather", "farther"), "it holds in its direction"),
        (("gather",), "half of it holds: points gather"),
        (("still",), "half of it holds: points on the background hardly move"),
        ((), "it isn't seen"),
    ],
)
def test_the_observation_by_its_claims(holding, said):
    words = {claim: "holds" if claim in holding else "not shown" for claim in CLAIMS}
    assert observation(words).startswith(said)
    if not holding:
        assert observation(words | {"farther": "reversed"}) == "it is contradicted"


# ------------------------------------------------------------------------------------------- what is kept


def made_up(name, seed, *, toward=0.0):
    """A run whose points are on the object in `toward` of the images more than by chance."""
    generator = np.random.default_rng(seed)
    found = {}
    for epoch in (0, 1, 2):
        for region in (OBJECT, "box"):
            share = generator.random((IMAGES, 2, len(MEASURES)))
            share[..., MEASURES.index("points")] += toward * epoch
            share[..., MEASURES.index("mass")] += toward * epoch
            share[0, :, MEASURES.index("length_on")] = np.nan  # an image without a reference point on its object
            found[epoch, "three.1", region] = share.astype(np.float32)
    return Measured(name, seed, f"{seed:010x}", Images("digits", "test", IMAGES, "0123456789"), 2, found)


def record(run):
    return {
        "name": run.name,
        "metrics": {"test/acc1": 0.5},
        "hardware": {"cpu": "a cpu", "threads": 1},
        "versions": {"torch": "2"},
        "config": {"model": {"name": "micro", "image_size": 64}, "recipe": {"epochs": 2}},
    }


@pytest.fixture
def kept(tmp_path):
    runs = [made_up(name, seed, toward=0.3) for seed in range(3) for name in ("baseline", "ablate_no_offset")]
    rows.write(runs, [record(run) for run in runs], tmp_path)
    return runs, rows.read(tmp_path), tmp_path


def test_rows_are_means_over_images(kept):
    runs, read, _ = kept
    assert len(read.rows) == 6 * 3 * 2 * 2  # runs, epochs, regions, groups
    row = next(r for r in read.rows if (r["name"], r["seed"], r["epoch"], r["group"]) == ("baseline", 1, 2, 1))
    [run] = [run for run in runs if (run.name, run.seed) == ("baseline", 1)]
    means = np.nanmean(run.values[2, "three.1", row["region"]].astype(float), axis=0)[1]
    assert [row[name] for name in MEASURES] == pytest.approx(means, rel=1e-4)
    assert row["chosen"] == 1 and row["images"] == IMAGES


def test_single_images_are_kept_where_intervals_need_them(kept):
    runs, read, _ = kept
    assert set(read.images) == {
        (name, when, "three.1") for name in ("baseline", "ablate_no_offset") for when in ("untrained", "trained")
    }
    trained = read.images["baseline", "trained", "three.1"]
    assert trained.shape == (3, IMAGES, len(STATISTICS))
    of = runs[0].values[2, "three.1", OBJECT].astype(float).mean(1)
    difference = of[:, MEASURES.index("points")] - of[:, MEASURES.index("reference")]
    np.testing.assert_allclose(
        trained[0, :, list(STATISTICS).index("points above reference")], 100 * difference, rtol=1e-3, atol=1e-3
    )


def test_a_page_is_made_of_what_is_kept_alone(kept):
    *_, folder = kept
    page.write(folder)
    text = (folder / "README.md").read_text()
    assert "The papers' observation, with 3 seeds:" in text and "| three.1 | trained | 3 |" in text
    assert f"of {IMAGES}, {IMAGES - 1} in three.1" in text, "images without points on their object are told of"
    pictures = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    assert set(pictures) == {"course.svg", "course-dark.svg", "course.png"}

    (folder / "README.md").write_text(text.replace("**Answer.**", "**Anything.**") + "\nSaid by hand.\n")
    page.write(folder)
    assert (folder / "README.md").read_text() == text + "\nSaid by hand.\n"
    assert {path.name: path.read_bytes() for path in (folder / "figures").iterdir()} == pictures


def test_other_statistics_are_not_mistaken_for_these(kept):
    _, _, folder = kept
    about = (folder / rows.ABOUT).read_text()
    (folder / rows.ABOUT).write_text(about.replace('"still"', '"quiet"'))
    with pytest.raises(ValueError, match="other statistics"):
        rows.read(folder)


def test_a_study_without_a_baseline_is_about_its_first_variant(tmp_path):
    runs = [made_up("mine", seed) for seed in range(3)]
    rows.write(runs, [record(run) for run in runs], tmp_path)
    page.write(tmp_path)
    assert rows.read(tmp_path).subject == "mine"
    assert "| three.1 | trained | 3 |" in (tmp_path / "README.md").read_text()
