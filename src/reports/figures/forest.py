"""Every variant's difference from the baseline, in the order of the study's rows: a forest plot."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.reports.comparison import Comparison
from src.reports.figures.labels import GAP, column_width, height_of, note, note_height, wrapped
from src.reports.figures.scale import far_off, limits
from src.reports.figures.theme import (
    BLUE,
    FAINT,
    GRID,
    INK,
    MUTED,
    VERMILLION,
    WIDTH,
    house_style,
    new_figure,
    panel,
)
from src.reports.results import Results

NAMES = 2.6  # inches at most

SIGNIFICANT = {"better": (BLUE, "s"), "worse": (VERMILLION, "D")}  # by the verdict's word; all else is ink, round

NOTE = (
    "Dot and line: mean and Student t 95 % interval over seeds, an arrow where it goes on. Faint dots: seeds. n: seeds "
    "that both have finished."
)
VERDICT = "Blue square: better, orange diamond: worse, after Holm's correction."
PUBLISHED = "Hollow diamond: the published difference, of another protocol."


@house_style
def forest(results: Results, comparisons: Sequence[Comparison], *, margin: float | None = None) -> Figure | None:
    """Means and Student t intervals, which are the honest ones with few seeds; None without a common seed.

    Args:
        margin: percentage points either side of zero to shade, such as those that don't matter.
    """
    compared = [c for c in comparisons if c.paired is not None]
    if not compared:
        return None
    published = {c.variant: _published_difference(results, c.variant) for c in comparisons}
    width = column_width([c.variant for c in comparisons], NAMES)
    names = [wrapped(c.variant, width) for c in comparisons]
    heights = [max(height_of(name) + GAP, 0.22) for name in names]
    high = sum(heights) + 0.1

    text = " ".join(
        (
            NOTE,
            *([VERDICT] if any(c.verdict.word in SIGNIFICANT for c in compared) else []),
            *([PUBLISHED] if any(p is not None for p in published.values()) else []),
            *([f"Shaded: within {margin:g} points of zero."] if margin is not None else []),
        )
    )
    figure = new_figure(0.3 + high + 0.5 + note_height(text))
    left, right = width + 0.2, 0.4
    axes = panel(figure, left, 0.3, WIDTH - left - right, high)
    note(figure, text)

    # The vertical axis is in inches, so that rows are as high as their names.
    axes.set_ylim(high, 0)
    far = far_off({c.variant: c.paired.mean for c in compared if c.paired}, 0)
    near = [c for c in compared if c.variant not in far]
    values = [0.0, *(d for c in near for d in c.differences), *(p for p in published.values() if p is not None)]
    axes.set_xlim(limits(values, [c.paired.t for c in near if c.paired]))
    axes.grid(axis="x")
    axes.axvline(0, color=INK, lw=0.8)
    if margin is not None:
        axes.axvspan(-margin, margin, color=INK, alpha=GRID)
    axes.text(1 + 0.2 / (WIDTH - left - right), 1 + 0.06 / high, "n", transform=axes.transAxes, ha="center")

    y = 0.05
    for comparison, height in zip(comparisons, heights, strict=True):
        at, y = y + height / 2, y + height
        _published(axes, at, published[comparison.variant])
        if comparison.variant in far:
            _off_the_axis(axes, at, comparison)
        else:
            _row(axes, at, comparison)
        seeds = str(len(comparison.seeds))
        axes.annotate(seeds, (1, at), (14.4, 0), ("axes fraction", "data"), "offset points", ha="center", va="center")
    axes.set_yticks([0.05 + sum(heights[:row]) + heights[row] / 2 for row in range(len(heights))], names)
    axes.tick_params(axis="y", length=0, pad=6)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"test top-1 minus {_short(results.baseline)}, percentage points")
    figure.set_label(_alt(results, compared))
    return figure


def _published(axes: Axes, at: float, difference: float | None) -> None:
    if difference is not None:
        axes.plot(difference, at, "D", ms=6.5, mfc="none", mec=INK, mew=0.8, gid="published")


def _row(axes: Axes, at: float, comparison: Comparison) -> None:
    """One variant, at the height `at`."""
    if comparison.paired is None:
        axes.text(0, at, " no common seed yet", va="center", alpha=MUTED)
        return
    paired, (low, high) = comparison.paired, axes.get_xlim()
    colour, marker = SIGNIFICANT.get(comparison.verdict.word, (INK, "o"))
    below = [at + 0.06] * len(comparison.differences)
    axes.plot(comparison.differences, below, "o", ms=2.8, color=INK, alpha=FAINT, gid="seeds")
    if paired.t is not None:
        axes.plot([max(paired.t[0], low), min(paired.t[1], high)], [at, at], color=colour, gid="interval")
        for end, beyond, arrow in ((low, paired.t[0] < low, "<"), (high, paired.t[1] > high, ">")):
            if beyond:
                axes.plot(end, at, arrow, color=colour, clip_on=False)
    axes.plot(paired.mean, at, marker, ms=5.5, color=colour, gid="mean")


def _off_the_axis(axes: Axes, at: float, comparison: Comparison) -> None:
    """Its numbers, at the end of the axis that it is beyond."""
    assert comparison.paired is not None
    below = comparison.paired.mean < 0
    end = axes.get_xlim()[0 if below else 1]
    colour, _ = SIGNIFICANT.get(comparison.verdict.word, (INK, "o"))
    axes.plot(end, at, "<" if below else ">", color=colour, clip_on=False)
    away = 6 if below else -6
    ha = "left" if below else "right"
    axes.annotate(_numbers(comparison), (end, at), (away, 0), "data", "offset points", ha=ha, va="center")


def _numbers(comparison: Comparison) -> str:
    assert comparison.paired is not None
    t = comparison.paired.t
    text = f"{comparison.paired.mean:+.1f}" + (f" ({t[0]:+.1f} to {t[1]:+.1f})" if t else "")
    return text.replace("-", "\N{MINUS SIGN}")


def _published_difference(results: Results, variant: str) -> float | None:
    ours, theirs = results.published(variant).get("top1"), results.published(results.baseline).get("top1")
    return None if ours is None or theirs is None else ours - theirs


def _short(name: str) -> str:
    return name if len(name) <= 30 else f"{name[:29]}…"


def _alt(results: Results, compared: Sequence[Comparison]) -> str:
    parts = "; ".join(f"{c.variant} {_numbers(c)}" for c in compared)
    return f"Difference of test top-1 from {results.baseline} in percentage points, with 95 % intervals: {parts}."
