"""How points and attention come to objects, or don't, over the epochs of a training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from src.looking.quantities import OBJECT
from src.looking.rows import Kept
from src.reports.figures.history import RANGE
from src.reports.figures.labels import note, note_height
from src.reports.figures.theme import BLUE, DASHES, FAINT, GREEN, INK, VERMILLION, WIDTH, house_style, new_figure, panel

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes:
        moves: whether it is of the baseline; otherwise of the network without offsets.
    """

    label: str
    colour: str
    dashes: str | tuple[int, tuple[float, ...]]
    quantity: Callable[[Row], float]
    moves: bool = True


def _above(measure: str, other: str) -> Callable[[Row], float]:
    """In percentage points."""
    return lambda row: 100 * (row[measure] - row[other])


# A column of panels each: its title, and its lines.
PANELS: Mapping[str, Sequence[Line]] = {
    "distance of points, px": (
        Line("start on the object", VERMILLION, "-", lambda row: row["length_on"]),
        Line("start off it", BLUE, DASHES[0], lambda row: row["length_off"]),
    ),
    "points on it, above ..., %": (
        Line("other images' points", VERMILLION, "-", _above("points", "points_other_image")),
        Line("random offsets", BLUE, DASHES[0], _above("points", "points_shuffled")),
        Line("reference points", GREEN, DASHES[1], _above("points", "reference")),
    ),
    "attention to it, above ..., %": (
        Line("other images' attention", VERMILLION, "-", _above("mass", "mass_other_image")),
        Line("equal weights", GREEN, DASHES[1], _above("mass", "points")),
        Line("other images', no offsets", INK, DASHES[2], _above("mass", "mass_other_image"), moves=False),
    ),
}


@house_style
def course(kept: Kept) -> Figure | None:
    """A row of panels a block, lines of means over seeds and groups; None where no epoch's weights were kept."""
    blocks = kept.blocks
    lines = {
        (block, title, line.label): found
        for block in blocks
        for title, parts in PANELS.items()
        for line in parts
        if (found := _course(kept, kept.subject if line.moves else kept.fixed, block, line.quantity)) is not None
    }
    if not lines or max(len(epochs) for epochs, _ in lines.values()) < 3:
        return None
    text = f"Means over seeds and groups, on test images; band: {RANGE}. Epoch 0 is before training."
    left, gap, high, top, key = 0.55, 0.5, 1.35, 0.3, 0.55
    width = (WIDTH - left - 0.1 - gap * (len(PANELS) - 1)) / len(PANELS)
    figure = new_figure(top + len(blocks) * (high + 0.25) + 0.3 + key + note_height(text))
    note(figure, text)
    ends = []
    for row, block in enumerate(blocks):
        for at, (title, parts) in enumerate(PANELS.items()):
            axes = panel(figure, left + at * (width + gap), top + row * (high + 0.25), width, high)
            for line in parts:
                if (block, title, line.label) in lines:
                    epochs, values = lines[block, title, line.label]
                    axes.fill_between(epochs, values.min(1), values.max(1), color=line.colour, alpha=0.15, lw=0)
                    axes.plot(epochs, values.mean(1), color=line.colour, ls=line.dashes)
                    said = title.replace("...", line.label) if "..." in title else f"{title}, {line.label}"
                    ends.append(f"{block}, {said}: {values[-1].mean():.2g}")
            axes.axhline(0, color=INK, alpha=FAINT, lw=0.6, zorder=0)
            axes.grid(axis="y")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.tick_params(labelbottom=row == len(blocks) - 1)
            if row == 0:
                axes.set_title(title, loc="left")
            if row == len(blocks) - 1:
                axes.set_xlabel("epoch")
            if at == 0:
                axes.set_ylabel(f"block {block}")
                axes.yaxis.set_label_coords(-0.38 / width, 0.5)
    for at, parts in enumerate(PANELS.values()):
        _key(figure, left + at * (width + gap), note_height(text) + key, parts)
    figure.set_label(f"At the end of training: {'; '.join(ends)}.")
    return figure


def _course(
    kept: Kept, name: str | None, block: str, quantity: Callable[[Row], float]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Epochs (E,) that all seeds have, and values (E, seeds); None where there are none."""
    by: dict[float, dict[float, list[float]]] = {}
    for row in kept.rows:
        if (row["name"], row["block"], row["region"]) == (name, block, OBJECT):
            by.setdefault(row["epoch"], {}).setdefault(row["seed"], []).append(quantity(row))
    seeds = sorted({seed for of in by.values() for seed in of})
    epochs = sorted(epoch for epoch, of in by.items() if len(of) == len(seeds))
    if not epochs:
        return None
    return np.array(epochs), np.array([[np.mean(by[epoch][seed]) for seed in seeds] for epoch in epochs])


def _key(figure: Figure, left: float, top: float, lines: Sequence[Line]) -> None:
    """Lines and what they are, from `top` inches above the lower edge down."""
    total = figure.get_figheight()
    for number, line in enumerate(lines):
        at = (top - 0.09 - 0.16 * number) / total
        figure.add_artist(Line2D([left / WIDTH, (left + 0.28) / WIDTH], [at, at], color=line.colour, ls=line.dashes))
        figure.text((left + 0.35) / WIDTH, at, line.label, va="center")
