"""Figures of made-up studies: what is drawn is what was measured, in every shape of study, and nothing overlaps."""

import csv
import re
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from scipy import stats

from src.reports.comparison import Comparison
from src.reports.figures import alt, draw, inline, save
from src.reports.figures.cost import cost
from src.reports.figures.forest import forest
from src.reports.figures.labels import spread, width_of, wrapped
from src.reports.figures.range_factor import range_factor
from src.reports.figures.save import DARK, LIGHT
from src.reports.figures.scale import far_off, limits
from src.reports.figures.theme import BLUE, FONT_SIZE, INK, VERMILLION, WIDTH
from src.reports.results import results_of
from src.statistics.paired import compare
from src.studies.table import Table, Variant, jobs_of
from tests.reports.made_up import config, make_run, make_study

ALWAYS = {"forest", "per_class", "cost", "learning_curves", "offsets"}
HOSTILE = ("$\\frac$", "<script>alert(1)</script>", "a_b & c", "x\" onload='y")


def comparisons_of(results, words=None):
    found = []
    for name in results.variants:
        if name == results.baseline:
            continue
        seeds = results.common_seeds(name, results.baseline)
        ours, theirs = results.scores(name), results.scores(results.baseline)
        differences = tuple(ours[seed] - theirs[seed] for seed in seeds)
        paired = compare(np.array([differences]))[0] if seeds else None
        verdict = SimpleNamespace(word=(words or {}).get(name, "cannot_tell"), text="")
        found.append(Comparison(name, results.baseline, seeds, differences, paired, None, None, verdict))
    return found


def names_of(number):
    """The baseline, two with a published value, long ones and short ones."""
    long = "ablate_{:02d}_the_reference_grid_and_the_position_bias_of_stage_four"
    others = (long.format(n)[:60] if n % 3 else f"v{n}" for n in range(number))
    return ["baseline", "no_offset", "no_bias", *others][:number]


def study(runs, number, seeds, **more):
    return results_of(make_study(runs, dict.fromkeys(names_of(number), 0.7), seeds=range(seeds), **more))


@pytest.fixture(scope="module")
def seven(tmp_path_factory):
    """Seven variants, four seeds, some missing; `v3` has one seed in common with the baseline, `v6` none."""
    unfinished = {("v3", seed): "failed" for seed in (1, 2, 3)} | {("baseline", 3): "running"}
    unfinished |= {(names_of(7)[5], seed): "waiting" for seed in range(4)}
    return study(tmp_path_factory.mktemp("runs"), 7, 4, unfinished=unfinished)


@pytest.fixture(scope="module")
def figures(seven):
    return draw(seven, comparisons_of(seven), tau=0.33, margin=1.0)


def marked(figure, gid):
    """Points (x, y) of all lines that carry a mark, one array a line."""
    return [line.get_xydata() for axes in figure.axes for line in axes.lines if line.get_gid() == gid]


def texts_of(figure):
    """(text, place in pixels) of all that is written."""
    FigureCanvasAgg(figure)  # so that letters have sizes
    figure.draw_without_rendering()
    texts = list(figure.texts)
    for axes in figure.axes:
        texts += [*axes.texts, axes.xaxis.label, axes.yaxis.label, axes._left_title]
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, sorted(axes.get_ylim()))):
            ticks = [tick for tick in axis.get_major_ticks() if min(low, high) <= tick.get_loc() <= max(low, high)]
            texts += [label for tick in ticks for label in (tick.label1, tick.label2)]
    return [(t.get_text(), t.get_window_extent(), t) for t in texts if t.get_visible() and t.get_text()]


def refuse_overlaps(figure):
    written = texts_of(figure)
    assert written
    assert all(artist.get_fontsize() >= FONT_SIZE == 8 for _, _, artist in written)
    low = np.array([box.min for _, box, _ in written])
    high = np.array([box.max for _, box, _ in written])
    cut = ((low < figure.bbox.min) | (high > figure.bbox.max)).any(axis=1)
    assert not [text for (text, *_), beyond in zip(written, cut, strict=True) if beyond]
    shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)  # (one, other, xy), in 1/100 inch
    over = np.argwhere(np.triu((shared > 1).all(axis=2), k=1))
    assert not [(written[one][0], written[other][0]) for one, other in over]


# ---------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("number, seeds", [(2, 1), (9, 3)])
def test_every_shape_of_study_has_its_figures_and_nothing_overlaps(tmp_path, number, seeds):
    results = study(tmp_path, number, seeds)
    drawn = draw(results, comparisons_of(results))
    assert set(drawn) == ALWAYS | ({"published"} if number > 2 else set())
    for figure in drawn.values():
        assert figure.get_figwidth() == WIDTH <= 7
        assert alt(figure).endswith(".")
        refuse_overlaps(figure)


def test_many_variants_make_a_higher_figure_not_a_tighter_one(tmp_path):
    results = study(tmp_path, 40, 2)
    compared = comparisons_of(results)
    figures = [forest(results, compared[:5]), forest(results, compared), cost(results)]
    assert figures[1].get_figheight() > 3 * figures[0].get_figheight()
    for figure in figures:
        refuse_overlaps(figure)


def test_missing_runs_leave_what_there_is(seven, figures):
    assert set(figures) == ALWAYS | {"published"}
    for figure in figures.values():
        refuse_overlaps(figure)
    assert "no common seed yet" in [text.strip() for text, *_ in texts_of(figures["forest"])]
    assert names_of(7)[5] not in alt(figures["cost"])


def test_a_study_without_results_has_no_figures(tmp_path):
    unfinished = {(name, 0): "waiting" for name in names_of(3)}
    results = study(tmp_path, 3, 1, unfinished=unfinished)
    assert draw(results, comparisons_of(results)) == {}


def test_one_seed_has_neither_bands_nor_intervals(tmp_path):
    results = study(tmp_path, 4, 1)
    for figure in draw(results, comparisons_of(results)).values():
        assert not marked(figure, "interval")
        assert not [c for axes in figure.axes for c in axes.collections if "Fill" in type(c).__name__]


# ---------------------------------------------------------------------------------------- numbers


def test_the_forest_shows_means_intervals_seeds_and_published_differences(seven, figures):
    compared = [c for c in comparisons_of(seven) if c.paired]
    figure = figures["forest"]
    assert [points[0, 0] for points in marked(figure, "mean")] == [np.mean(c.differences) for c in compared]
    assert [tuple(points[:, 0]) for points in marked(figure, "seeds")] == [c.differences for c in compared]
    low, high = figure.axes[0].get_xlim()
    drawn = [tuple(points[:, 0]) for points in marked(figure, "interval")]
    expected = [stats.ttest_1samp(c.differences, 0).confidence_interval() for c in compared if len(c.seeds) > 1]
    assert np.allclose(drawn, [(max(i.low, low), min(i.high, high)) for i in expected])
    assert [points[0, 0] for points in marked(figure, "published")] == pytest.approx([81.7 - 82, 81.4 - 82])
    counts = [text for text, *_ in texts_of(figure) if text.isdigit() and len(text) == 1]
    assert counts[: len(seven.variants) - 1] == ["3", "3", "3", "3", "0", "1"]
    heights = [points[0, 1] for points in marked(figure, "mean")]
    assert heights == sorted(heights)  # the rows' order, from above


def test_only_verdicts_have_colours(seven):
    words = {"no_offset": "better", "no_bias": "worse"}
    figure = forest(seven, comparisons_of(seven, words))
    means = [line for line in figure.axes[0].lines if line.get_gid() == "mean"]
    assert [to_hex(line.get_color()) for line in means] == [BLUE, VERMILLION, INK, INK, INK]
    assert len({line.get_marker() for line in means}) == 3  # in grey too


def test_a_variant_that_learnt_nothing_does_not_squeeze_the_others(tmp_path):
    scores = {"baseline": 0.7, "no_offset": 0.69, "no_bias": 0.68, "collapsed": 0.05}
    results = results_of(make_study(tmp_path, scores))
    drawn = draw(results, comparisons_of(results))
    collapsed = next(c for c in comparisons_of(results) if c.variant == "collapsed")
    assert drawn["forest"].axes[0].get_xlim()[0] > -40
    assert f"{collapsed.paired.mean:.1f}".replace("-", "\N{MINUS SIGN}") in " ".join(
        text for text, *_ in texts_of(drawn["forest"])
    )
    own = f"(below: {np.mean(list(results.scores('collapsed').values())):.1f}\N{NO-BREAK SPACE}%)"
    for name in ("cost", "forest"):
        refuse_overlaps(drawn[name])
    assert own in " ".join(text.replace("\n", " ") for text, *_ in texts_of(drawn["cost"]))


def test_cost_shows_every_variant_at_its_height_and_cost(seven, figures):
    panels = figures["cost"].axes
    assert [axes.get_xlabel() for axes in panels] == ["MACs", "parameters", "images per second"]
    for name in ("baseline", "no_bias", "v3"):
        runs = list(seven.finished[name].values())
        y = np.mean(list(seven.scores(name).values()))
        speed = np.mean([state.metrics["images_per_second"] for state in runs])
        drawn = [line.get_xydata()[0] for axes in panels for line in axes.lines if line.get_gid() == name]
        record = runs[0].record
        assert np.allclose(drawn, [(record["macs"], y), (record["params"], y), (speed, y)])


def test_published_shows_both_values_and_tau(seven, figures):
    for name, top1 in {"baseline": 82.0, "no_offset": 81.7, "no_bias": 81.4}.items():
        (points,) = marked(figures["published"], name)
        assert points[0] == pytest.approx([top1, np.mean(list(seven.scores(name).values()))])
    assert "tau 0.33, 3 rows" in " ".join(text.replace("\n", " ") for text, *_ in texts_of(figures["published"]))


def test_per_class_shows_differences_of_common_seeds(seven, figures):
    (mesh,) = figures["per_class"].axes[0].collections
    drawn = np.asarray(mesh.get_array()).reshape(-1, 10)
    shown = [name for name in seven.variants[1:] if seven.common_seeds(name, "baseline")]
    assert len(drawn) == len(shown) == 5
    for row, name in enumerate(shown):
        seeds = seven.common_seeds(name, "baseline")
        ours, theirs = (
            np.array([seven.finished[of][seed].metrics["test/acc1_per_class"] for seed in seeds])
            for of in (name, "baseline")
        )
        expected = 100 * (ours - theirs).mean(axis=0)
        assert drawn[row] == pytest.approx(expected)
    low, high = mesh.get_clim()
    assert low == -high  # zero is in the middle


def test_curves_are_means_over_seeds_with_their_range(seven, figures):
    def read(state, column):
        with next(state.folder.glob("curves/*/metrics.csv")).open(newline="") as file:
            return [float(row[column]) for row in csv.DictReader(file) if row[column]]

    runs = list(seven.finished["baseline"].values())
    values = 100 * np.array([read(state, "val/acc1") for state in runs])
    axes = figures["learning_curves"].axes[0]
    assert axes.lines[0].get_xydata() == pytest.approx(np.stack([np.arange(1, 6), values.mean(axis=0)], axis=1))
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((values.min(), values.max()))

    norms = np.array([read(state, "offset/three/grad_norm") for state in runs])
    gradient = figures["offsets"].axes[1]
    assert gradient.get_ylabel() == "gradient norm"
    assert gradient.lines[0].get_ydata() == pytest.approx(norms.mean(axis=0))


# ---------------------------------------------------------------------------------------- range factors


def range_study(runs, factors=(0, 2, 8), **others):
    variants = {}
    for factor in factors:
        name = f"factor_{factor}"
        of = config(name, runs, "ranges", **others.get(name, {}))
        of["offset"], of["published"] = {"_target_": "learned"}, {"top1": 81 + factor / 10}
        of["offset_range"] = {"_target_": "bounded", "factor": factor}
        of["attention"] = {"deformable": {"offset_range": {"_target_": "bounded", "factor": factor}}}
        variants[name] = Variant(name, of, (("seed",), ("data", "seed")))
    table = Table("ranges", "How far?", (), runs, variants, jobs_of(variants.values(), (0, 1)))
    table.write()
    for job in table.jobs:
        make_run(table, job, 0.7)
    return results_of(table)


def test_range_factors_have_our_curve_above_the_published_one(tmp_path):
    results = range_study(tmp_path, factors=(8, 0, 2))
    figure = range_factor(results)
    ours = [(f, np.mean(list(results.scores(f"factor_{f}").values()))) for f in (0, 2, 8)]
    assert marked(figure, "mean")[0] == pytest.approx(np.array(ours))
    assert marked(figure, "published")[0] == pytest.approx(np.array([(0, 81.0), (2, 81.2), (8, 81.8)]))
    above, below = figure.axes
    assert above.get_xlim() == below.get_xlim() and above.get_position().y0 > below.get_position().y1
    refuse_overlaps(figure)


def test_a_study_that_changes_anything_else_is_no_study_of_range_factors(tmp_path, seven):
    assert range_factor(seven) is None
    assert range_factor(range_study(tmp_path / "more", factor_2={"momentum": 0.5})) is None
    assert range_factor(range_study(tmp_path / "few", factors=(0, 2))) is None


# ---------------------------------------------------------------------------------------- files


def test_files_are_the_same_bytes_twice_and_themes_differ_in_colours_only(tmp_path, seven, figures):
    again = forest(seven, comparisons_of(seven), margin=1.0)
    one, two = (save(figure, tmp_path / at, "forest") for figure, at in ((figures["forest"], "one"), (again, "two")))
    assert [path.name for path in one] == ["forest.svg", "forest-dark.svg", "forest.png"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert inline(figures["forest"]) == inline(again)
    light, dark = (path.read_text() for path in one[:2])
    assert light != dark
    for here in LIGHT:
        light, dark = light.replace(f'"{LIGHT[here]}"', f'"{here}"'), dark.replace(f'"{DARK[here]}"', f'"{here}"')
    assert light == dark
    assert b"Software" not in one[2].read_bytes() and "matplotlib" not in light.lower()


def test_inline_figures_stay_within_themselves(figures):
    seen = set()
    for figure in figures.values():
        svg = inline(figure)
        root = ElementTree.fromstring(svg)
        assert svg.startswith("<svg") and "currentColor" in svg and INK not in svg
        assert not {"style", "script", "image"} & {element.tag for element in root.iter()}
        assert "http" not in svg and "style=" not in svg
        ids = {element.get("id") for element in root.iter()} - {None}
        used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg))
        assert {a or b for a, b in used} == ids
        assert not ids & seen
        seen |= ids
        assert root.get("aria-label") == alt(figure)


def test_hostile_names_come_out_as_text(tmp_path, seven):
    chosen = [c for c in comparisons_of(seven) if c.paired][: len(HOSTILE)]
    hostile = [
        Comparison(name, c.baseline, c.seeds, c.differences, c.paired, None, None, c.verdict)
        for name, c in zip(HOSTILE, chosen, strict=True)
    ]
    plain = SimpleNamespace(baseline="baseline", published=lambda name: {})
    figure = forest(plain, hostile)
    FigureCanvasAgg(figure).draw()
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text().replace("\n", " ") for label in labels] == list(HOSTILE)
    assert not any(label.get_parse_math() for label in labels)
    light, *_ = save(figure, tmp_path, "hostile")
    for svg in (light.read_text(), inline(figure)):
        root = ElementTree.fromstring(svg)
        assert not any(element.tag.endswith("script") for element in root.iter())
        assert not any(key.startswith("on") for element in root.iter() for key in element.attrib)
        assert all(name in root.get("aria-label") for name in HOSTILE)


# ---------------------------------------------------------------------------------------- parts


def test_labels_move_no_farther_than_they_must():
    heights = np.array([1.0, 1.0, 1.0])
    assert spread(np.array([8.0, 1.0, 5.0]), heights, 0, 10) == pytest.approx([8, 1, 5])
    assert spread(np.array([5.0, 5.0, 5.0]), heights, 0, 10) == pytest.approx([4, 5, 6])
    assert spread(np.array([0.0, 0.0, 9.9]), heights, 0, 10) == pytest.approx([0.5, 1.5, 9.5])
    assert spread(np.array([0.0, 0.0, 0.0]), np.array([1.0, 2.0, 1.0]), 0, 4) == pytest.approx([0.5, 2, 3.5])


@pytest.mark.parametrize("text", ["ablate_no_offset_no_bias", "W" * 60, "two words", "_" * 90, ""])
def test_names_are_broken_to_fit_and_stay_whole(text):
    lines = wrapped(text, 1.0).split("\n")
    assert all(width_of(line) <= 1.0 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_axes_hold_values_and_of_wide_intervals_a_part():
    assert limits([0, 1], [(-0.5, 1.5)]) == pytest.approx((-0.6, 1.6))
    low, high = limits([0, 1], [(-50, 51)])
    assert -1.5 < low < -1 and 2 < high < 2.5
    assert limits([70], [None]) == pytest.approx((69.75, 70.25), abs=0.06)


def test_what_is_far_off_is_never_the_greater_part():
    assert far_off({"a": 1, "b": -2, "c": 0.5, "d": -60}, 0) == {"d"}
    assert far_off({"a": 1, "b": -2, "c": -7}, 0) == set()
    assert far_off({"a": 1, "b": -60, "c": -61, "d": 62}, 0) == set()
    assert far_off({"a": -54}, 0) == set()
