"""How far points may move: accuracy over the offset range factor, ours above the paper's (DAT, CVPR 2022)."""

import copy
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.reports.figures.labels import note, note_height
from src.reports.figures.scale import INTERVAL, Mean, limits, mean_of
from src.reports.figures.theme import BLUE, FAINT, INK, VERMILLION, WIDTH, house_style, new_figure, panel
from src.reports.results import Results
from src.runs.identity import identity

FEWEST = 3  # points that make a curve


@house_style
def range_factor(results: Results) -> Figure | None:
    """Two panels with one horizontal axis: the protocols differ, so accuracies can't share one.

    None for studies whose variants differ in anything else, and before three factors have a finished run.
    """
    factors = factors_of(results)
    if factors is None:
        return None
    ours = {factor: mean_of(results.scores(name).values()) for factor, name in factors.items()}
    means = {factor: mean for factor, mean in ours.items() if mean is not None}
    if len(means) < FEWEST:
        return None
    theirs = {f: results.published(name)["top1"] for f, name in factors.items() if "top1" in results.published(name)}

    several = any(mean.interval for mean in means.values())
    text = f"Ours: mean, {INTERVAL} (line), seeds (faint dots beside it)." if several else "Ours: one seed a point."
    text += " Below: the paper's figure, one run a point, another protocol." if theirs else ""
    figure = new_figure(0.1 + 2.1 + (1.6 if theirs else 0) + 0.55 + note_height(text))
    note(figure, text)
    axes = panel(figure, 0.65, 0.1, WIDTH - 0.8, 2.1)
    _ours(axes, means)
    if theirs:
        axes.tick_params(labelbottom=False)
        axes = _published(figure, axes, theirs)
    axes.set_xlabel("offset range factor s")
    axes.set_xticks(list(factors))
    figure.set_label(_alt(means, theirs))
    return figure


def factors_of(results: Results) -> dict[float, str] | None:
    """Names of variants by factor, rising; None if they differ in anything else."""
    found: dict[float, str] = {}
    rest = set()
    for name, variant in results.table.variants.items():
        config = variant.with_seed(0)
        factor = (config.get("offset_range") or {}).get("factor")
        if factor is None:
            return None
        found[factor] = name
        rest.add(identity(_without_factor(config)))
    return dict(sorted(found.items())) if len(rest) == 1 and len(found) == len(results.variants) else None


def _without_factor(config: Mapping[str, Any]) -> dict[str, Any]:
    """Resolved configs repeat the range wherever a module takes it."""
    found = copy.deepcopy(dict(config))
    at = [found]
    while at:
        part = at.pop()
        if isinstance(part.get("offset_range"), dict):
            part["offset_range"].pop("factor", None)
        at += [value for value in part.values() if isinstance(value, dict)]
    return found


def _ours(axes: Axes, means: Mapping[float, Mean]) -> None:
    beside = 0.012 * (max(means) - min(means))
    for factor, mean in means.items():
        if mean.interval:
            axes.plot([factor, factor], mean.interval, color=BLUE, gid="interval")
            axes.plot([factor + beside] * len(mean.values), mean.values, "o", ms=3, color=INK, alpha=FAINT, gid="seeds")
    axes.plot(list(means), [mean.value for mean in means.values()], "-o", color=BLUE, gid="mean")
    axes.set_ylim(limits([v for m in means.values() for v in m.values], [m.interval for m in means.values()]))
    axes.grid(axis="y")
    axes.set_ylabel("ours: test top-1, %")


def _published(figure: Figure, above: Axes, theirs: Mapping[float, float]) -> Axes:
    axes = panel(figure, 0.65, 0.1 + 2.1 + 0.2, WIDTH - 0.8, 1.4)
    axes.sharex(above)
    axes.plot(list(theirs), list(theirs.values()), "--D", color=VERMILLION, mfc="none", mew=0.9, gid="published")
    axes.grid(axis="y")
    axes.set_ylabel("published top-1, %")
    return axes


def _alt(means: Mapping[float, Mean], theirs: Mapping[float, float]) -> str:
    ours = ", ".join(f"{mean.value:.1f} at {factor:g}" for factor, mean in means.items())
    paper = ", ".join(f"{value:.2f} at {factor:g}" for factor, value in theirs.items())
    return f"Test top-1 in percent over the offset range factor: {ours}" + (f"; published: {paper}." if theirs else ".")
