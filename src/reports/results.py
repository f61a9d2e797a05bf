"""What a study has found so far, read from run records only: the one input of every table, figure and page.

The rows and seeds that are still missing come from the study's frozen table. Runs that were made without one, by
`python -m src.train study=...`, are a study too: what is there is its table.
"""

import csv
import functools
import json
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.runs.record import find_records
from src.studies.states import State, states
from src.studies.table import Job, Table, Variant

SCORE = "test/acc1"  # of every comparison; validation chose the epoch, so it can't judge it too
PREDICTIONS = "predictions.npz"

# What numpy raises for a file that isn't there, or isn't whole.
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)

# What runs must share to be compared, by where it stands in their configs.
PROTOCOL = ("data.name", "model.name", "model.image_size", "recipe")


@dataclass(frozen=True)
class Results:
    """A study's runs, whatever has become of them.

    Attributes:
        table: question, variants in the order of their rows, and jobs.
        states: of the jobs, in the table's order.
        baseline: the variant that the others are compared with.
    """

    table: Table
    states: tuple[State, ...]
    baseline: str

    @property
    def variants(self) -> tuple[str, ...]:
        """Names, in the order of the study's rows."""
        return tuple(self.table.variants)

    @functools.cached_property
    def seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(job.seed for job in self.table.jobs))

    @functools.cached_property
    def finished(self) -> Mapping[str, Mapping[int, State]]:
        """Finished runs by variant and seed; a variant without any has an empty mapping."""
        found: dict[str, dict[int, State]] = {name: {} for name in self.variants}
        for state in self.states:
            if state.status == "finished":
                found[state.job.name][state.job.seed] = state
        return found

    @property
    def missing(self) -> tuple[State, ...]:
        """Jobs without a result."""
        return tuple(state for state in self.states if state.status != "finished")

    def scores(self, variant: str, metric: str = SCORE) -> dict[int, float]:
        """Percent by seed."""
        return {seed: 100 * state.metrics[metric] for seed, state in self.finished[variant].items()}

    def common_seeds(self, *variants: str) -> tuple[int, ...]:
        """Seeds that all of `variants` have finished, in the table's order."""
        return tuple(seed for seed in self.seeds if all(seed in self.finished[name] for name in variants))

    def config(self, variant: str) -> Mapping[str, Any]:
        return self.table.variants[variant].config

    def published(self, variant: str) -> Mapping[str, Any]:
        """The paper's figures for the variant; empty if it has none."""
        return self.config(variant).get("published") or {}

    def any_finished(self) -> State | None:
        """A finished run, of the baseline if there is one."""
        of = (*self.finished[self.baseline].values(), *(s for s in self.states if s.status == "finished"))
        return next(iter(of), None)

    def with_baseline(self, name: str) -> "Results":
        """Raises ValueError if there is no such variant."""
        if name not in self.table.variants:
            raise ValueError(f"no variant {name!r} to compare with; there are {', '.join(self.variants)}")
        return Results(self.table, self.states, name)


def results_of(table: Table) -> Results:
    """What has become of the jobs of `table`."""
    return Results(table, tuple(states(table)), _baseline(table.variants))


def results_below(folder: Path, question: str = "", order: Sequence[str] = ()) -> Results:
    """All runs of the study `folder` = `runs/<study>`, without a frozen table.

    Args:
        order: names of variants that come first, in this order.

    Raises:
        ValueError: there are none, two are one job, or they differ in more than their variants.
    """
    records = list(find_records(folder))
    readable = [record for record in records if "config" in record]
    if not readable:
        raise ValueError(f"no run below {folder}; python -m src.study run, or src.train study=..., makes some")
    _refuse_other_protocols(readable, folder)
    names = sorted({r["name"] for r in readable}, key=lambda n: (n not in order, n in order and order.index(n), n))
    variants = {
        name: Variant(name, next(r["config"] for r in readable if r["name"] == name), (("seed",),)) for name in names
    }
    jobs: list[Job] = []
    found: list[State] = []
    for record in sorted(readable, key=lambda record: (record["seed"], names.index(record["name"]))):
        job = Job(record["name"], record["seed"], record["identity"])
        if any((job.name, job.seed) == (other.name, other.seed) for other in jobs):
            raise ValueError(
                f"{folder} has two runs of {job}: they differ in what the variant's name doesn't say; move one away, "
                f"or make a study of them"
            )
        jobs.append(job)
        found.append(State(job, record["status"], Path(record["folder"]), record))
    table = Table(folder.name, question, (), folder.parent, variants, tuple(jobs))
    return Results(table, tuple(found), _baseline(variants))


def _baseline(variants: Mapping[str, Variant]) -> str:
    """The row of that name; else the one that the others are most often compared with; else the first."""
    if "baseline" in variants:
        return "baseline"
    named = [variant.config.get("against") for variant in variants.values()]
    return max(variants, key=lambda name: named.count(name))  # the first of equals


def _refuse_other_protocols(records: Sequence[Mapping[str, Any]], folder: Path) -> None:
    for where in PROTOCOL:
        seen: dict[str, str] = {}
        for record in records:
            value = functools.reduce(lambda at, key: (at or {}).get(key), where.split("."), record["config"])
            seen.setdefault(json.dumps(value, sort_keys=True), record["name"])
        if len(seen) > 1:
            raise ValueError(
                f"runs below {folder} differ in {where} ({' and '.join(seen.values())}), so they can't be compared; "
                f"give one kind a study of its own, or name the table with its overrides"
            )


# ---------------------------------------------------------------------------------------- of one run


def predictions(state: State) -> tuple[np.ndarray, np.ndarray] | None:
    """(labels, predicted classes) of the test images, (N,) each, in the order of the test set; None without a file."""
    try:
        with np.load(state.folder / PREDICTIONS, allow_pickle=False) as saved:
            label, predicted = saved["label"], saved["predicted"]
    except UNREADABLE:
        return None
    return (label, predicted) if label.shape == predicted.shape and label.ndim == 1 else None


def curves(state: State) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every column of the run's curves, in the order of steps; of a step, the last attempt counts."""
    found: dict[str, dict[int, float]] = {}
    files = sorted(state.folder.glob("curves/attempt-*/metrics.csv"), key=lambda f: int(f.parent.name.split("-")[1]))
    for path in files:
        try:
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error):
            continue
        for row in rows:
            step = _number(row.get("step"))
            for column, text in row.items():
                value = _number(text)
                if step is not None and value is not None and column not in ("step", None):
                    found.setdefault(column, {})[int(step)] = value
    return {column: sorted(points.items()) for column, points in found.items()}


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
