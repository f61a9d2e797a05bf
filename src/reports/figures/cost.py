"""Accuracy against what it costs: multiply-accumulates, parameters, images per second in training."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from src.reports.figures.labels import LEADER, column_width, label_column, label_column_height, note, note_height
from src.reports.figures.scale import INTERVAL, Scores, mean_of
from src.reports.figures.theme import FAINT, MOST_LINES, WIDTH, house_style, looks, new_figure, panel
from src.reports.results import Results
from src.studies.states import State

COSTS = {
    "MACs": lambda state: state.record["macs"],
    "parameters": lambda state: state.record["params"],
    "images per second": lambda state: state.metrics["images_per_second"],
}
NAMES = 1.7  # inches at most
NARROWEST = 0.1  # of the middle value: costs that are nearly equal should look so


@house_style
def cost(results: Results) -> Figure | None:
    """A panel per cost with one vertical axis, so that a variant has one height in all; None with fewer than two."""
    found = {name: mean_of(results.scores(name).values()) for name in results.variants}
    means = {name: mean for name, mean in found.items() if mean is not None}
    if len(means) > MOST_LINES:  # intervals of nearly equal costs would be a wall; the forest plot shows them
        means = {name: replace(mean, interval=None) for name, mean in means.items()}
    scores = Scores.of(means)
    if scores is None or len(means) < 2:
        return None
    costs = {kind: _costs(results, scores.means, kind) for kind in COSTS}

    several = any(mean.interval for mean in scores.means.values())
    text = "A variant has the same height in all panels."
    text += f" Faint lines: {INTERVAL}, as far as the axis goes." if several else ""
    width = column_width(list(scores.labels.values()), NAMES)
    high = max(2.6, label_column_height(scores.labels.values(), width))
    figure = new_figure(0.1 + high + 0.5 + note_height(text))
    note(figure, text)
    look = looks(results.variants, results.baseline)
    left, gap, right = 0.55, 0.36, LEADER + width + 0.25
    wide = (WIDTH - left - right - gap * (len(costs) - 1)) / len(costs)
    for place, (kind, values) in enumerate(costs.items()):
        axes = panel(figure, left + place * (wide + gap), 0.1, wide, high)
        labels = scores.draw(axes, values, look, alpha=FAINT)
        axes.set_xlim(_limits(values.values()))
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(EngFormatter(sep="\N{NO-BREAK SPACE}"))
        axes.grid()
        axes.set_xlabel(kind)
        axes.tick_params(labelleft=place == 0)
        if place == 0:
            axes.set_ylabel("test top-1, %")
    label_column(axes, labels, width, markers=True)
    figure.set_label(_alt(scores, costs))
    return figure


def _costs(results: Results, variants: Iterable[str], kind: str) -> dict[str, float]:
    """Means over runs."""
    runs: dict[str, Sequence[State]] = {name: list(results.finished[name].values()) for name in variants}
    return {name: fmean(COSTS[kind](state) for state in states) for name, states in runs.items()}


def _limits(values: Iterable[float]) -> tuple[float, float]:
    low, high = min(values := list(values)), max(values)
    length = 1.15 * max(high - low, NARROWEST * (low + high) / 2)
    return (low + high - length) / 2, (low + high + length) / 2


def _alt(scores: Scores, costs: Mapping[str, Mapping[str, float]]) -> str:
    number = EngFormatter(places=2)
    parts = []
    for name, mean in scores.means.items():
        values = ", ".join(f"{number(of[name])} {kind}" for kind, of in costs.items())
        parts.append(f"{name} {mean.value:.1f} % ({values})")
    return f"Test top-1 against cost: {'; '.join(parts)}."
