"""Curves of runs, as few numbers as a page needs to draw them."""

from collections.abc import Sequence
from typing import Any

from src.reports import results
from src.reports.page.shared import Shared
from src.studies.states import State

POINTS = 200  # of a column of a run: more than a chart has room for
FEWEST = 10
NUMBERS = 500_000  # of a page, some three megabytes: what thousands of columns share

_SHOWN = ("train/loss", "val/", "offset/", "train/images_per_second")

Curves = dict[str, list[tuple[int, float]]]
_of_finished: dict[tuple[str, str], Curves] = {}


def compact(states: Sequence[State]) -> dict[str, Any]:
    """Curves of all runs: at most `POINTS` of a column, fewer where there are more columns than `NUMBERS` can hold.

    Returns:
        columns: names; those of the validation first.
        steps: lists of training steps.
        limit: points of a column, at most.
        runs: for each state, by the number of a column, (which of `steps`, values).
    """
    found = [_shown(state) for state in states]
    limit = min(POINTS, max(FEWEST, NUMBERS // max(1, sum(map(len, found)))))
    names = {name for each in found for name in each}
    columns = sorted(names, key=lambda name: (not name.startswith("val/"), not name.startswith("train/"), name))
    numbers, steps = {name: number for number, name in enumerate(columns)}, Shared()
    runs = []
    for each in found:
        run = {}
        for name, points in sorted(each.items(), key=lambda item: numbers[item[0]]):
            points = thinned(points, limit)
            values = [float(f"{value:.4g}") for _, value in points]
            run[str(numbers[name])] = [steps.number([step for step, _ in points]), values]
        runs.append(run)
    return {"columns": columns, "steps": steps.values, "limit": limit, "runs": runs}


def thinned(points: Sequence[Any], limit: int) -> list[Any]:
    """At most `limit` of them, evenly spread, the first and the last among them."""
    if len(points) <= limit:
        return list(points)
    return [points[round(place * (len(points) - 1) / (limit - 1))] for place in range(limit)]


def _shown(state: State) -> Curves:
    """The columns that a page shows. Those of a finished run are read once: a page that follows a study asks often."""
    if state.record is None:
        return {}
    key = str(state.folder), str(state.record.get("ended"))
    if state.status == "finished" and key in _of_finished:
        return _of_finished[key]
    curves = {
        name: thinned(points, POINTS) for name, points in results.curves(state).items() if name.startswith(_SHOWN)
    }
    if state.status == "finished":
        _of_finished[key] = curves
    return curves
