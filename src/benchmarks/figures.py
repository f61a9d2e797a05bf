"""Figures of benchmarks in the house style: ratios with their quartiles, and curves over sizes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from src.reports.figures.labels import GAP, Label, column_width, height_of, label_column, note, note_height, wrapped
from src.reports.figures.labels import LEADER as GAP_TO_LABELS
from src.reports.figures.theme import BLUE, INK, WIDTH, house_style, looks, new_figure, panel

NAMES, LABELS = 2.6, 1.6  # inches at most

Row = Mapping[str, Any]


@house_style
def ratios(panels: Mapping[str, Sequence[tuple[str, Row]]], *, baseline: str, text: str) -> Figure:
    """How many times as fast each version is as the baseline: a panel below the other, a row for each version.

    Args:
        panels: by heading, pairs of a row's name and the row of a table, with the columns of `Timing.row`.
        baseline: what the versions are compared with, for the axis.
        text: what else the reader must know.
    """
    rows = [pair for pairs in panels.values() for pair in pairs]
    width = column_width([name for name, _ in rows], NAMES)
    heights = {head: [max(height_of(wrapped(name, width)) + GAP, 0.2) for name, _ in p] for head, p in panels.items()}
    text = f"Dot and line: median and quartiles over rounds. {text}"
    total = sum(sum(h) + 0.62 for h in heights.values()) + 0.1 + note_height(text)
    figure = new_figure(total)
    note(figure, text)
    left, right, top = width + 0.2, 0.5, 0.1
    furthest = [value for _, row in rows for value in (row["times_as_fast_low"], row["times_as_fast_high"])]
    low, high = 0.95 * min(1.0, *furthest), 1.05 * max(1.0, *furthest)
    for head, pairs in panels.items():
        own = heights[head]
        axes = panel(figure, left, top + 0.2, WIDTH - left - right, sum(own) + 0.05)
        axes.set_title(head, loc="left", pad=3)
        axes.set_ylim(sum(own) + 0.05, 0)
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="x")
        axes.axvline(1, color=INK, lw=0.8)
        places = [sum(own[:at]) + own[at] / 2 for at in range(len(own))]
        for at, (_, row) in zip(places, pairs, strict=True):
            axes.plot([row["times_as_fast_low"], row["times_as_fast_high"]], [at, at], color=BLUE)
            axes.plot(row["times_as_fast"], at, "o", color=BLUE)
            said = f"{row['times_as_fast']:.2f}"
            axes.annotate(said, (1, at), (8, 0), ("axes fraction", "data"), "offset points", va="center")
        axes.set_yticks(places, [wrapped(name, width) for name, _ in pairs])
        axes.tick_params(axis="y", length=0, pad=6)
        axes.spines["left"].set_visible(False)
        top += sum(own) + 0.62
    axes.set_xlabel(f"times as fast as {baseline}")
    said = "; ".join(f"{name} {row['times_as_fast']:.2f}" for name, row in rows)
    figure.set_label(f"Times as fast as {baseline}: {said}.")
    return figure


@house_style
def curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], *, x: str, first: str, text: str
) -> Figure:
    """Quantities over a size, both on logarithmic axes: panels side by side, a line for each version.

    Args:
        panels: by quantity with its unit, by version, pairs (size, value).
        x: the size, with its unit.
        first: the version that is drawn in ink.
        text: what else the reader must know.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    look = looks(names, first)
    width = column_width(names, LABELS)
    high = 2.6
    figure = new_figure(0.3 + high + 0.45 + note_height(text))
    note(figure, text)
    left, gap = 0.62, 0.62
    labels_take = GAP_TO_LABELS + width + 0.2
    wide = (WIDTH - left - labels_take - gap * (len(panels) - 1)) / len(panels)
    sizes = sorted({size for lines in panels.values() for line in lines.values() for size, _ in line})
    for place, (head, lines) in enumerate(panels.items()):
        axes = panel(figure, left + place * (wide + gap), 0.3, wide, high)
        axes.set_title(head, loc="left", pad=4)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        for name, line in lines.items():
            axes.plot(*zip(*line, strict=True), look[name].marker, ls=look[name].dashes, color=look[name].colour)
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(which="major")
        axes.set_xlabel(x)
    labels = []
    bottom, top = (math.log(end) for end in axes.get_ylim())
    for name, line in lines.items():
        labels.append(Label(name, line[-1][0], line[-1][1], look[name]))
    _column(axes, labels, width, bottom, top)
    said = "; ".join(f"{head}: {', '.join(lines)}" for head, lines in panels.items())
    figure.set_label(f"Over {x}: {said}.")
    return figure


def _column(axes: Any, labels: list[Label], width: float, bottom: float, top: float) -> None:
    """Labels on a logarithmic axis: a linear twin over the same heights carries them."""
    twin = axes.twinx()
    twin.set_ylim(bottom, top)
    twin.axis("off")
    placed = [Label(label.text, label.x, math.log(label.y), label.look) for label in labels]
    label_column(twin, placed, width, markers=True)
