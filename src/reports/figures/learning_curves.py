"""Accuracy on validation, epoch by epoch."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.reports.figures.history import RANGE, Course, History, course
from src.reports.figures.labels import (
    LEADER,
    Label,
    column_width,
    height_of,
    label_column,
    label_column_height,
    note,
    note_height,
    wrapped,
)
from src.reports.figures.scale import limits
from src.reports.figures.theme import BLUE, INK, MOST_LINES, WIDTH, Look, house_style, looks, new_figure, panel
from src.reports.results import Results

COLUMN, LABEL = "val/acc1", "validation top-1, %"
NAMES = 2.0  # inches at most
ACROSS = 4  # small panels in a row


@house_style
def learning_curves(results: Results, history: History) -> Figure | None:
    """A line per variant; for many variants a panel each, against the baseline. None without curves."""
    found = {name: course(history[name], COLUMN, factor=100) for name in results.variants}
    courses = {name: one for name, one in found.items() if one is not None and len(one.epochs) > 1}
    if not courses:
        return None
    figure = _together(results, courses) if len(courses) <= MOST_LINES else _apart(results, courses)
    ends = "; ".join(f"{name} {one.mean[-1]:.1f} %" for name, one in courses.items())
    epochs = max(int(one.epochs[-1]) for one in courses.values())
    figure.set_label(f"Validation top-1 over {epochs} epochs, means over seeds, which end at: {ends}.")
    return figure


def _together(results: Results, courses: Mapping[str, Course]) -> Figure:
    width = column_width(list(courses), NAMES)
    high = max(2.6, label_column_height(list(courses), width))
    text = _note(courses, "Line: mean over seeds.")
    figure = new_figure(0.1 + high + 0.5 + note_height(text))
    axes = panel(figure, 0.55, 0.1, WIDTH - 0.55 - LEADER - width - 0.15, high)
    note(figure, text)
    look = looks(results.variants, results.baseline)
    for name, one in courses.items():
        draw_course(axes, one, look[name])
    axes.grid(axis="y")
    axes.set_xlabel("epoch")
    axes.set_ylabel(LABEL)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_ylim(axes.get_ylim())
    labels = [Label(name, one.epochs[-1], one.mean[-1], look[name]) for name, one in courses.items()]
    label_column(axes, labels, width, markers=False)
    return figure


def _apart(results: Results, courses: Mapping[str, Course]) -> Figure:
    baseline = courses.get(results.baseline)
    names = [name for name in courses if name != results.baseline]
    text = _note(courses, f"Blue, solid: the variant's mean over seeds; dark, dashed: {results.baseline}.")
    width = (WIDTH - 0.55 - 0.1) / ACROSS
    titles = [wrapped(name, width - 0.15) for name in names]
    rows = [range(start, min(start + ACROSS, len(names))) for start in range(0, len(names), ACROSS)]
    title_heights = [max(height_of(titles[index]) for index in row) + 0.08 for row in rows]
    high = 0.85
    figure = new_figure(sum(title_heights) + len(rows) * (high + 0.12) + 0.3 + note_height(text))
    note(figure, text)

    # Limits in place of shared axes, which tell each other of every change: that takes seconds for forty.
    epochs = [1, max(int(one.epochs[-1]) for one in courses.values())]
    scale = limits([v for one in courses.values() for v in (one.low.min(), one.high.max())], ())
    top = 0.0
    for row, title_height in zip(rows, title_heights, strict=True):
        top += title_height
        for place, index in enumerate(row):
            axes = panel(figure, 0.55 + place * width, top, width - 0.15, high)
            if baseline is not None:
                draw_course(axes, baseline, Look(INK, "--", "o"), band=False)
            draw_course(axes, courses[names[index]], Look(BLUE, "-", "o"))
            axes.set_xlim(limits(epochs, ()))
            axes.set_ylim(scale)
            axes.grid(axis="y")
            axes.set_title(titles[index], loc="left", pad=3, linespacing=1.2)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.tick_params(labelleft=place == 0, labelbottom=index + ACROSS >= len(names))
        top += high + 0.12
    figure.text((0.55 + (WIDTH - 0.65) / 2) / WIDTH, (note_height(text) + 0.02) / figure.get_figheight(), "epoch")
    figure.text(0.08 / WIDTH, 0.5, LABEL, rotation=90, va="center")
    return figure


def draw_course(axes: Axes, one: Course, look: Look, *, band: bool = True) -> None:
    """The mean as a line, and the range of the seeds if there are several."""
    axes.plot(one.epochs, one.mean, color=look.colour, ls=look.dashes)
    if band and one.seeds > 1:
        axes.fill_between(one.epochs, one.low, one.high, color=look.colour, alpha=0.1)


def _note(courses: Mapping[str, Course], text: str) -> str:
    counts = sorted({one.seeds for one in courses.values()})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    band = f" Band: {RANGE}." if counts[-1] > 1 else ""
    return f"{text}{band} Seeds: {seeds}."
