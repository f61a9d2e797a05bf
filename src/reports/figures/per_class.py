"""Which classes gain and which lose: differences of per-class accuracy from the baseline."""

import math
import re

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure

from src.reports.figures.labels import GAP, column_width, height_of, note, note_height, wrapped
from src.reports.figures.scale import Mean, far_off, mean_of
from src.reports.figures.theme import BLUE, MUTED, VERMILLION, WIDTH, house_style, new_figure, panel
from src.reports.results import Results

METRIC = "test/acc1_per_class"
MOST_CLASSES = 10  # columns that have room for their numbers
NAMES = 2.2  # inches at most
UNWRITABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")  # in XML, or on a line
FEWEST_SEEDS = 3  # that have an interval in their cell

# Zero is transparent, so that it is the page's colour in every theme; the ends leave numbers readable.
COLOURS = LinearSegmentedColormap.from_list(
    "from worse to better",
    [(0, to_rgba(VERMILLION, 0.6)), (0.5, to_rgba(VERMILLION, 0)), (0.5, to_rgba(BLUE, 0)), (1, to_rgba(BLUE, 0.6))],
)


@house_style
def per_class(results: Results) -> Figure | None:
    """A heat map, variants by classes; of many classes the ten that differ most, either way.

    None without a seed that a variant and the baseline have both finished, with a figure for every class.
    """
    means = {name: _differences(results, name) for name in results.variants if name != results.baseline}
    means = {name: row for name, row in means.items() if row}
    if not means:
        return None
    values = np.array([[mean.value for mean in row] for row in means.values()])
    every = values.shape[1]
    most = np.argsort(-np.abs(values).max(axis=0), kind="stable")[:MOST_CLASSES]
    shown = np.sort(most)
    labels = class_names(results, every)
    reach = {name: max(abs(row[c].value) for c in shown) for name, row in means.items()}
    usual = [reach[name] for name in reach.keys() - far_off(reach, 0)]
    largest = max(*usual, 1.0)  # full colour from there on; less than a point isn't worth it

    several = any(_half(mean) for row in means.values() for mean in row)
    text = f"Percentage points from {results.baseline}, means over common seeds; blue: better, orange: worse."
    text += " Second line: half the Student t 95 % interval, not corrected for the number of cells." if several else ""
    text += f" The {len(shown)} of {every} classes that differ most." if every > len(shown) else ""

    width = column_width(list(means), NAMES)
    names = [wrapped(name, width) for name in means]
    heights = np.array([max(height_of(name) + GAP, 0.36 if several else 0.26) for name in names])
    edges = np.concatenate([[0], np.cumsum(heights)])
    left = width + 0.2
    cell = min(0.6, (WIDTH - left - 0.1) / len(shown))
    ticks = [wrapped(labels[c], cell - 0.04) for c in shown]
    top = max(height_of(tick) for tick in ticks) + 0.35
    figure = new_figure(top + edges[-1] + 0.1 + note_height(text))
    note(figure, text)
    axes = panel(figure, left, top, cell * len(shown), edges[-1])
    axes.set_ylim(edges[-1], 0)  # in inches, so that rows are as high as their names
    columns = np.arange(len(shown) + 1)
    axes.pcolormesh(columns, edges, values[:, shown], cmap=COLOURS, vmin=-largest, vmax=largest)
    for row, centre in zip(means.values(), (edges[:-1] + edges[1:]) / 2, strict=True):
        for column, which in enumerate(shown):
            mean = row[which]
            half = _half(mean)
            above = 0.075 if half else 0
            axes.text(column + 0.5, centre - above, _signed(mean.value), ha="center", va="center")
            if half:
                axes.text(column + 0.5, centre + above, half, ha="center", va="center", alpha=MUTED)
    axes.set_xticks(columns[:-1] + 0.5, ticks, linespacing=1.2)
    axes.set_yticks((edges[:-1] + edges[1:]) / 2, names)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("class")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.set_label(_alt(results, means, labels))
    return figure


def class_names(results: Results, classes: int) -> list[str]:
    """From the data's config, else numbers."""
    names = (results.config(results.baseline).get("data") or {}).get("class_names") or ()
    if len(names) != classes:
        return [str(c) for c in range(classes)]
    return [UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", str(name)) for name in names]


def _differences(results: Results, variant: str) -> list[Mean]:
    """A mean per class over the seeds that both have finished; empty where there are none."""
    rows = []
    for seed in results.common_seeds(variant, results.baseline):
        ours, theirs = (results.finished[name][seed].metrics.get(METRIC) for name in (variant, results.baseline))
        if ours and theirs and len(ours) == len(theirs):
            rows.append(100 * (np.array(ours, dtype=float) - np.array(theirs, dtype=float)))
    if not rows or not np.isfinite(rows).all():
        return []
    return [mean for mean in map(mean_of, np.array(rows).T.tolist()) if mean is not None]


def _half(mean: Mean) -> str:
    """Half the interval. Two seeds have none that says anything: it would be wider than all percentages there are."""
    if mean.interval is None or len(mean.values) < FEWEST_SEEDS:
        return ""
    return f"±{_digits((mean.interval[1] - mean.interval[0]) / 2)}"


def _digits(value: float) -> str:
    """One decimal, none for what has two digits already."""
    return f"{value:.1f}" if round(value, 1) < 10 else f"{value:.0f}"


def _signed(value: float) -> str:
    sign = "+" if value > 0 else "\N{MINUS SIGN}"
    return f"{sign}{_digits(abs(value))}" if not math.isclose(round(value, 1), 0) else "0.0"


def _alt(results: Results, means: dict[str, list[Mean]], labels: list[str]) -> str:
    parts = []
    for name, row in means.items():
        low, high = (pick(range(len(row)), key=lambda c: row[c].value) for pick in (min, max))
        parts.append(
            f"{name} from {row[low].value:+.1f} (class {labels[low]}) to {row[high].value:+.1f} ({labels[high]})"
        )
    return f"Per-class accuracy minus that of {results.baseline}, in percentage points: {'; '.join(parts)}."
