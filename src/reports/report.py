"""A study's report as data: everything that its files say, worked out once."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from src.reports import answer, protocol, tables
from src.reports.comparison import Comparison, compare_steps, compare_with_baseline
from src.reports.results import Results
from src.reports.text import Table
from src.statistics.agreement import Agreement, agreement


@dataclass(frozen=True)
class Report:
    """
    Attributes:
        margin: percentage points below which a difference is called none.
    """

    results: Results
    margin: float

    @functools.cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        return compare_with_baseline(self.results, margin=self.margin)

    @functools.cached_property
    def steps(self) -> tuple[Comparison, ...]:
        """Each variant against the one before it, in a study of steps."""
        return compare_steps(self.results, margin=self.margin)

    @functools.cached_property
    def agreement(self) -> Agreement:
        """Of our order of rows with the published one."""
        results = self.results
        scores = {name: results.scores(name) for name in results.variants}
        ours = [[scores[name].get(seed, np.nan) for seed in results.seeds] for name in results.variants]
        published = [results.published(name).get("top1", np.nan) for name in results.variants]
        return agreement(np.array(ours), np.array(published, dtype=float))

    @property
    def answer(self) -> str:
        return answer.answer(self.results, self.comparisons)

    @property
    def missing(self) -> str:
        return answer.missing(self.results)

    @property
    def order(self) -> str:
        return answer.order(self.agreement)

    @property
    def limits(self) -> list[str]:
        return answer.limits(self.results, self.comparisons)

    @property
    def command(self) -> str:
        table, seeds = self.results.table, self.results.seeds
        asked = [override for override in table.asked if not override.startswith("runs=")]
        first = tuple(range(len(seeds))) == seeds
        asked.append(f"seeds={len(seeds) if first else ','.join(map(str, seeds))}")
        return " ".join(["python -m src.study run", table.study, *asked])

    @property
    def accuracy(self) -> Table:
        return tables.accuracy_table(self.results, self.comparisons)

    @functools.cached_property
    def protocols(self) -> Table | None:
        return protocol.protocols(self.results)

    @property
    def texts(self) -> Mapping[str, str | Sequence[str]]:
        """What the page says in words."""
        said = [
            f"{row[0]}: ours {row[1]}; published {row[2]}." for row in (self.protocols.rows if self.protocols else [])
        ]
        ours = protocol.protocol(self.results)
        return {
            "answer": " ".join(filter(None, [self.answer, self.missing])),
            "protocol": [
                *(said or [f"{key}: {value}." for key, value in ours.items()]),
                *filter(None, [self.order]),
                f"Computed on {protocol.hardware(self.results) or 'nothing yet'}.",
            ],
            "limits": self.limits,
        }

    def summary(self) -> dict[str, Any]:
        """What other pages say of the study: the index, and READMEs."""
        results = self.results
        return {
            "name": results.table.study,
            "question": results.table.question,
            "answer": self.answer,
            "missing": self.missing,
            "order": self.order,
            "limits": self.limits,
            "command": self.command,
            "header": list(self.accuracy.header),
            "rows": [list(row) for row in self.accuracy.rows],
            "variants": len(results.variants),
            "seeds": len(results.seeds),
            "finished": len(results.states) - len(results.missing),
            "total": len(results.states),
            "data": results.config(results.baseline)["data"]["name"],
            "model": results.config(results.baseline)["model"]["name"],
            "hardware": protocol.hardware(results),
        }
