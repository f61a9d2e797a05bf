"""Bars of seconds, a row for each thing that takes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from src.reports.figures.labels import GAP, column_width, height_of, note, note_height, wrapped
from src.reports.figures.theme import BLUE, INK, WIDTH, house_style, new_figure, panel

NAMES = 2.6  # inches at most
PICTURE = (  # of the figure `seconds`, in a page beside it
    '<picture>\n<source media="(prefers-color-scheme: dark)" srcset="seconds-dark.svg">\n'
    '<img src="seconds.svg" alt="The seconds of the tables above as bars">\n</picture>'
)
LEFT, RIGHT, HEAD = 0.2, 0.75, 0.3  # inches


@house_style
def bars(panels: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]], *, unit: str, text: str) -> Figure:
    """A panel below the other, a bar for each row from zero to its median, and a line between its quartiles.

    Args:
        panels: by heading, pairs of a row's name and the row, with `seconds`, `seconds_low` and `seconds_high`.
        unit: of the axis.
        text: what else the reader must know.
    """
    names = [name for pairs in panels.values() for name, _ in pairs]
    width = column_width(names, NAMES)
    heights = {head: [max(height_of(wrapped(n, width)) + GAP, 0.2) for n, _ in p] for head, p in panels.items()}
    text = f"Bar: median over rounds; line: quartiles. {text}"
    figure = new_figure(0.1 + sum(sum(own) + 0.1 + HEAD + 0.3 for own in heights.values()) + note_height(text))
    note(figure, text)
    top = 0.1
    for head, pairs in panels.items():
        own = heights[head]
        axes = panel(figure, width + LEFT, top + HEAD, WIDTH - width - LEFT - RIGHT, sum(own) + 0.05)
        axes.set_title(head, loc="left", pad=3)
        axes.set_ylim(sum(own) + 0.05, 0)
        axes.set_xlim(0, 1.02 * max(row["seconds_high"] for _, row in pairs))
        axes.grid(axis="x")
        places = [sum(own[:at]) + own[at] / 2 for at in range(len(own))]
        axes.barh(places, [row["seconds"] for _, row in pairs], height=0.1, color=BLUE)
        for at, (_, row) in zip(places, pairs, strict=True):
            axes.plot([row["seconds_low"], row["seconds_high"]], [at, at], color=INK, lw=0.8)
            said = f"{row['seconds']:.2g}" if row["seconds"] < 1 else f"{row['seconds']:.3g}"
            axes.annotate(said, (1, at), (8, 0), ("axes fraction", "data"), "offset points", va="center")
        axes.set_yticks(places, [wrapped(name, width) for name, _ in pairs])
        axes.tick_params(axis="y", length=0, pad=6)
        axes.spines["left"].set_visible(False)
        top += sum(own) + 0.1 + HEAD + 0.3
    axes.set_xlabel(unit)
    figure.set_label(f"{unit}: " + "; ".join(f"{n} {r['seconds']:.2f}" for p in panels.values() for n, r in p) + ".")
    return figure
