"""What offsets do during training: how far points move, how many leave the map, how strongly their network learns."""

import re
from collections.abc import Iterable, Mapping

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from src.reports.figures.history import RANGE, Columns, Course, History, course
from src.reports.figures.labels import height_of, note, note_height, wrapped
from src.reports.figures.learning_curves import draw_course
from src.reports.figures.theme import (
    FAINT,
    INK,
    MOST_LINES,
    WIDTH,
    Look,
    house_style,
    looks,
    new_figure,
    panel,
)
from src.reports.results import Results

# What src/callbacks/offset_diagnostics.py logs: the column's end, its label and factor.
KINDS = {
    "mean_px": ("distance, pixels", 1.0),
    "outside": ("off the map, %", 100.0),
    "grad_norm": ("gradient norm", 1.0),
}
COLUMN = re.compile(rf"offset/(?P<stage>.+?)(/g\d+)?/(?P<kind>{'|'.join(KINDS)})")

Panels = Mapping[tuple[str, str], Mapping[str, Course]]  # by kind and stage, then by variant

KEY = (WIDTH - 0.2) / 2  # inches, the width of a column of the key


@house_style
def offsets(results: Results, history: History) -> Figure | None:
    """A panel per stage and kind, a line per variant that has points; None where no variant has any.

    Of many variants, those that end farthest from the baseline have a colour, the others are grey.
    """
    panels = courses(history)
    if not panels:
        return None
    order = list((results.config(results.baseline).get("model") or {}).get("stages") or ())  # from image to logits
    stages = sorted({stage for _, stage in panels}, key=lambda s: (order.index(s) if s in order else len(order), s))
    kinds = [kind for kind in KINDS if any((kind, stage) in panels for stage in stages)]
    drawn = [name for name in results.variants if any(name in lines for lines in panels.values())]
    named = _named(results, drawn, panels)
    look = looks(named if results.baseline in named else [*named, results.baseline], results.baseline)

    several = any(one.seeds > 1 for lines in panels.values() for one in lines.values())
    text = "Means over groups and seeds" + (f"; band: {RANGE}." if several else ".")
    text += f" Grey: {len(drawn) - len(named)} other variants." if len(drawn) > len(named) else ""
    keys = [wrapped(name, KEY - 0.45) for name in named]
    rows = [keys[start : start + 2] for start in range(0, len(keys), 2)]
    key_height = sum(max(map(height_of, row)) + 0.03 for row in rows)

    left, gap, high = 0.6, 0.45, 1.2
    width = (WIDTH - left - 0.1 - gap * (len(stages) - 1)) / len(stages)
    bottom = 0.45 + key_height + note_height(text)
    figure = new_figure(0.3 + len(kinds) * (high + 0.15) + bottom)
    note(figure, text)
    for row, kind in enumerate(kinds):
        for column, stage in enumerate(stages):
            axes = panel(figure, left + column * (width + gap), 0.3 + row * (high + 0.15), width, high)
            for name, one in panels.get((kind, stage), {}).items():
                if name in named:
                    draw_course(axes, one, look[name])
                else:
                    axes.plot(one.epochs, one.mean, color=INK, alpha=FAINT, lw=0.8, zorder=1)
            axes.set_ylim(bottom=0)
            axes.grid(axis="y")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.tick_params(labelbottom=row == len(kinds) - 1)
            if row == len(kinds) - 1:
                axes.set_xlabel("epoch")
            if row == 0:
                axes.set_title(f"stage {stage}", loc="left")
            if column == 0:
                axes.set_ylabel(KINDS[kind][0])
                axes.yaxis.set_label_coords(-0.45 / width, 0.5)
    _key(figure, named, keys, look, bottom - 0.45)
    figure.set_label(_alt(panels))
    return figure


def courses(history: History) -> Panels:
    """Means over the groups of a stage; an offset that is always zero has no points to speak of."""
    found: dict[tuple[str, str], dict[str, Course]] = {}
    for variant, runs in history.items():
        for (kind, stage), columns in _columns(runs.values()).items():
            one = course(runs, *columns, factor=KINDS[kind][1])
            if one is not None and len(one.epochs) > 1:
                found.setdefault((kind, stage), {})[variant] = one
    moving = {
        name for (kind, _), lines in found.items() for name, c in lines.items() if kind == "mean_px" and c.high.any()
    }
    kept = {place: {name: c for name, c in lines.items() if name in moving} for place, lines in found.items()}
    return {place: lines for place, lines in kept.items() if lines}


def _columns(runs: Iterable[Columns]) -> dict[tuple[str, str], list[str]]:
    """Columns by kind and stage."""
    found: dict[tuple[str, str], list[str]] = {}
    for column in dict.fromkeys(column for run in runs for column in run):
        match = COLUMN.fullmatch(column)
        if match:
            found.setdefault((match["kind"], match["stage"]), []).append(column)
    return found


def _named(results: Results, drawn: list[str], panels: Panels) -> list[str]:
    """All variants if colours suffice, else the baseline and those whose distance ends farthest from its."""
    if len(drawn) <= MOST_LINES:
        return drawn

    def apart(name: str) -> float:
        lines = [lines for (kind, _), lines in panels.items() if kind == "mean_px" and name in lines]
        ends = [(line[name].mean[-1], line.get(results.baseline)) for line in lines]
        return max((abs(end - (baseline.mean[-1] if baseline else 0)) for end, baseline in ends), default=0)

    others = sorted((name for name in drawn if name != results.baseline), key=apart, reverse=True)
    chosen = {results.baseline, *others[: MOST_LINES - 1]}
    return [name for name in drawn if name in chosen]


def _key(figure: Figure, names: list[str], texts: list[str], look: Mapping[str, Look], top: float) -> None:
    """Two columns of lines and names, from `top` inches above the lower edge down."""
    total = figure.get_figheight()
    for start in range(0, len(names), 2):
        row = max(height_of(text) for text in texts[start : start + 2]) + 0.03
        for column, (name, text) in enumerate(zip(names[start : start + 2], texts[start : start + 2], strict=True)):
            left, middle = 0.1 + column * KEY, (top - row / 2) / total
            ends = [left / WIDTH, (left + 0.3) / WIDTH]
            figure.add_artist(Line2D(ends, [middle] * 2, color=look[name].colour, ls=look[name].dashes))
            figure.text((left + 0.38) / WIDTH, middle, text, va="center", linespacing=1.2)
        top -= row


def _alt(panels: Panels) -> str:
    parts = []
    for (kind, stage), lines in panels.items():
        if kind == "mean_px":
            ends = ", ".join(f"{name} {one.mean[-1]:.2g}" for name, one in lines.items())
            parts.append(f"stage {stage}: {ends}")
    return f"Mean distance of points from their reference points at the end of training, in pixels: {'; '.join(parts)}."
