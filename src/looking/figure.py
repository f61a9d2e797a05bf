"""How points and attention come to objects, or don't, over the epochs of a training."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from src.looking.quantities import OBJECT
from src.looking.rows import Kept
from src.reports.figures.history import RANGE
from src.reports.figures.labels import note, note_height
from src.reports.figures.theme import BLUE, FAINT, GREEN, INK, VERMILLION, WIDTH, house_style, new_figure, panel

Row = Mapping[str, Any]
Quantity = Callable[[Row], float]


def _distance(row: Row) -> float:
    return row["length_on"]


# A column of panels: its title, and its lines: label, variant ("baseline" or "fixed"), colour, dashes, quantity.
PANELS: tuple[tuple[str, tuple[tuple[str, str, str, Any, Quantity], ...]], ...] = (
    (
        "distance of points, px",
        (
            ("start on the object", "baseline", VERMILLION, "-", _distance),
            ("start off it", "baseline", BLUE, (0, (4, 1.5)), lambda row: row["length_off"]),
        ),
    ),
    (
        "points on it, above ..., %",
        (
            (
                "reference points",
                "baseline",
                GREEN,
                (0, (6, 1.5, 1, 1.5)),
                lambda row: 100 * (row["points"] - row["reference"]),
            ),
            (
                "random offsets",
                "baseline",
                BLUE,
                (0, (4, 1.5)),
                lambda row: 100 * (row["points"] - row["points_shuffled"]),
            ),
            (
                "other images' points",
                "baseline",
                VERMILLION,
                "-",
                lambda row: 100 * (row["points"] - row["points_other_image"]),
            ),
        ),
    ),
    (
        "attention to it, above ..., %",
        (
            (
                "equal weights",
                "baseline",
                GREEN,
                (0, (6, 1.5, 1, 1.5)),
                lambda row: 100 * (row["mass"] - row["points"]),
            ),
            (
                "other images' attention",
                "baseline",
                VERMILLION,
                "-",
                lambda row: 100 * (row["mass"] - row["mass_other_image"]),
            ),
            (
                "the same, without offsets",
                "fixed",
                INK,
                (0, (1, 1.2)),
                lambda row: 100 * (row["mass"] - row["mass_other_image"]),
            ),
        ),
    ),
)


@house_style
def course(kept: Kept, baseline: str, fixed: str) -> Figure | None:
    """A row of panels a block, lines of means over seeds and groups; None where no epoch's weights were kept."""
    variants = {"baseline": baseline, "fixed": fixed}
    blocks = list(dict.fromkeys(row["block"] for row in kept.rows))
    lines = {
        (block, at, label): found
        for block in blocks
        for at, (_, parts) in enumerate(PANELS)
        for label, variant, _, _, quantity in parts
        if (found := _course(kept, variants[variant], block, quantity)) is not None
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
        for at, (title, parts) in enumerate(PANELS):
            axes = panel(figure, left + at * (width + gap), top + row * (high + 0.25), width, high)
            for label, _, colour, dashes, _ in parts:
                if (block, at, label) in lines:
                    epochs, values = lines[block, at, label]
                    _line(axes, epochs, values, colour, dashes)
                    ends.append(f"{block}, {title.removesuffix(', above ..., %')}, {label}: {values[-1].mean():.2g}")
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
    for at, (_, parts) in enumerate(PANELS):
        _key(figure, left + at * (width + gap), note_height(text) + key, [part[:4] for part in parts])
    figure.set_label(f"At the end of training: {'; '.join(ends)}.")
    return figure


def _course(kept: Kept, name: str, block: str, quantity: Quantity) -> tuple[np.ndarray, np.ndarray] | None:
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


def _line(axes: Axes, epochs: np.ndarray, values: np.ndarray, colour: str, dashes: Any) -> None:
    axes.fill_between(epochs, values.min(1), values.max(1), color=colour, alpha=0.15, lw=0)
    axes.plot(epochs, values.mean(1), color=colour, ls=dashes)


def _key(figure: Figure, left: float, top: float, parts: list[tuple[str, str, str, Any]]) -> None:
    """Lines and what they are, from `top` inches above the lower edge down."""
    total = figure.get_figheight()
    for number, (label, _, colour, dashes) in enumerate(parts):
        at = (top - 0.09 - 0.16 * number) / total
        figure.add_artist(Line2D([left / WIDTH, (left + 0.28) / WIDTH], [at, at], color=colour, ls=dashes))
        figure.text((left + 0.35) / WIDTH, at, label, va="center")
