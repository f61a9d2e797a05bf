"""What happened during training, epoch by epoch, of the finished runs of a study."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from src.reports.results import Results, curves
from src.studies.states import State

Columns = Mapping[str, Mapping[int, float]]  # by column of the curves, then by epoch, from 1
History = Mapping[str, Mapping[int, Columns]]  # by variant, then by seed

RANGE = "lowest to highest seed"


@dataclass(frozen=True)
class Course:
    """A quantity over epochs, over the seeds of a variant.

    Attributes:
        epochs: those that all seeds have, (E,), from 1.
        mean, low, high: over seeds, (E,); low and high are the lowest and the highest seed.
    """

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int


def history(results: Results) -> History:
    """All columns of all finished runs that have curves."""
    found: dict[str, dict[int, Columns]] = {}
    for variant, runs in results.finished.items():
        of_seeds = {seed: per_epoch(state) for seed, state in runs.items()}
        found[variant] = {seed: columns for seed, columns in of_seeds.items() if columns}
    return found


def per_epoch(state: State) -> Columns:
    """Of each column the mean over an epoch's steps; empty without validations, which say how long an epoch is."""
    columns = curves(state)
    epoch_at = dict(columns.get("epoch", ()))
    validated = [step for step, _ in columns.get("val/acc1", ()) if step in epoch_at]
    if not validated:
        return {}
    steps = (validated[-1] + 1) / (epoch_at[validated[-1]] + 1)
    last = epoch_at[validated[-1]] + 1
    found: dict[str, dict[int, float]] = {}
    for column, points in columns.items():
        values: dict[int, list[float]] = defaultdict(list)
        for step, value in points:
            values[math.ceil((step + 1) / steps)].append(value)
        found[column] = {epoch: sum(v) / len(v) for epoch, v in sorted(values.items()) if epoch <= last}
    return found


def course(runs: Mapping[int, Columns], *columns: str, factor: float = 1.0) -> Course | None:
    """The mean of `columns`, times `factor`, over the seeds of a variant; None where no epoch has them all."""
    of_seeds = [[run.get(column, {}) for column in columns] for run in runs.values()]
    having = [parts for parts in of_seeds if all(parts)]
    if not having:
        return None
    epochs = sorted(set.intersection(*(set(part) for parts in having for part in parts)))
    if not epochs:
        return None
    values = np.array([[[part[epoch] for epoch in epochs] for part in parts] for parts in having])
    values = factor * values.mean(axis=1)  # (seeds, epochs)
    return Course(np.array(epochs), values.mean(axis=0), values.min(axis=0), values.max(axis=0), len(values))
