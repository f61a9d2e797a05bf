"""What is kept of a study: all that its page and figure are made of, so that no weights are needed.

results.csv    a row a run, epoch, block, group and region: means over images
images.npz     the statistics of each image, over all groups of a block, before training and as chosen
about.json     which images, and what trained and measured it
"""

import csv
import json
import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.looking.quantities import MEASURES, OBJECT, STATISTICS, statistics_of
from src.runs.record import replacing, write_json
from src.table import write_csv

if TYPE_CHECKING:  # torch takes seconds to import, which whoever reads doesn't need
    from src.looking.runs import Measured

ROWS, IMAGES, ABOUT = "results.csv", "images.npz", "about.json"
UNTRAINED, TRAINED = "untrained", "trained"
BASELINE, FIXED = "baseline", "ablate_no_offset"
DIGITS = 5  # of the numbers in results.csv


@dataclass(frozen=True)
class Kept:
    """A study as it is read back.

    Attributes:
        rows: as in results.csv, numbers as numbers; NaN where nothing is defined.
        images: by variant, `UNTRAINED` or `TRAINED`, and block, (seeds, N, statistics).
        about: what trained and measured it.
    """

    rows: Sequence[Mapping[str, Any]]
    images: Mapping[tuple[str, str, str], np.ndarray]
    about: Mapping[str, Any]

    @property
    def blocks(self) -> list[str]:
        """Names, in the order of the network."""
        return list(dict.fromkeys(row["block"] for row in self.rows))

    @property
    def regions(self) -> list[str]:
        return list(dict.fromkeys(row["region"] for row in self.rows))

    @property
    def variants(self) -> list[str]:
        return list(self.about["seeds"])

    @property
    def subject(self) -> str:
        """The variant that claims are about: the baseline, or the first one where there is none."""
        return BASELINE if BASELINE in self.variants else self.variants[0]

    @property
    def fixed(self) -> str | None:
        """The variant whose points can't move, if there is one."""
        return FIXED if FIXED in self.variants else None

    def per_seed(
        self, name: str, when: str, block: str, *, region: str = OBJECT, group: int | None = None
    ) -> dict[str, np.ndarray]:
        """`MEASURES` by name, each (seeds,), means over groups unless one is asked for; empty without such runs."""
        by_seed: dict[float, list[Mapping[str, Any]]] = {}
        for row in self.rows:
            asked = (row["name"], row["block"], row["region"]) == (name, block, region)
            then = row["chosen"] == 1 if when == TRAINED else row["epoch"] == 0
            if asked and then and group in (None, row["group"]):
                by_seed.setdefault(row["seed"], []).append(row)
        if not by_seed:
            return {}
        return {m: np.array([np.mean([row[m] for row in rows]) for rows in by_seed.values()]) for m in MEASURES}


def rows_of(run: "Measured") -> list[dict[str, Any]]:
    """Of one run."""
    found = []
    for (epoch, block, region), values in run.values.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is NaN, which is what is meant
            means = np.nanmean(values.astype(float), axis=0)
        for group, of_group in enumerate(means):
            labels = {"name": run.name, "seed": run.seed, "identity": run.identity, "epoch": epoch}
            labels |= {"chosen": int(epoch == run.chosen), "block": block, "group": group, "region": region}
            labels["images"] = len(values)
            found.append(labels | {m: _short(value) for m, value in zip(MEASURES, of_group.tolist(), strict=True)})
    return found


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.{DIGITS}g}"


def images_of(runs: Iterable["Measured"]) -> dict[tuple[str, str, str], np.ndarray]:
    """As `Kept.images`; seeds in the order of `runs`."""
    found: dict[tuple[str, str, str], list[np.ndarray]] = defaultdict(list)
    for run in runs:
        for (epoch, block, region), values in run.values.items():
            if region == OBJECT and epoch in (0, run.chosen):
                when = TRAINED if epoch else UNTRAINED
                found[run.name, when, block].append(statistics_of(values).astype(np.float32))
    return {key: np.stack(values) for key, values in found.items()}


def write(runs: Sequence["Measured"], records: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Writes the three files of measured runs, at least one.

    Args:
        records: of the same runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_csv([row for run in runs for row in rows_of(run)], folder / ROWS)
    arrays = {"/".join(key): values for key, values in images_of(runs).items()}
    with replacing(folder / IMAGES) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    first = records[0]
    machine = {(r["hardware"]["cpu"], r["hardware"]["threads"], r["versions"]["torch"]) for r in records}
    accuracy: dict[str, list[float]] = defaultdict(list)
    for record in records:
        accuracy[record["name"]].append(record["metrics"]["test/acc1"])
    about = {
        "images": asdict(runs[0].images),
        "statistics": list(STATISTICS),
        "seeds": {name: [run.seed for run in runs if run.name == name] for name in accuracy},
        "test/acc1": accuracy,
        "model": first["config"]["model"]["name"],
        "image_size": first["config"]["model"]["image_size"],
        "epochs": first["config"]["recipe"]["epochs"],
        "trained on": [{"cpu": cpu, "threads": threads, "torch": torch} for cpu, threads, torch in sorted(machine)],
    }
    write_json(folder / ABOUT, about)


def read(folder: Path) -> Kept:
    """What `write` wrote.

    Raises:
        OSError: a file is missing.
        ValueError: they were made with other statistics.
    """
    about = json.loads((folder / ABOUT).read_text())
    if about["statistics"] != list(STATISTICS):
        raise ValueError(f"{folder / IMAGES} holds other statistics; measure its runs again")
    texts = ("name", "identity", "block", "region")
    with (folder / ROWS).open(newline="") as file:
        rows = [
            {key: value if key in texts else float(value) if value else math.nan for key, value in row.items()}
            for row in csv.DictReader(file)
        ]
    with np.load(folder / IMAGES, allow_pickle=False) as saved:
        images = {_key(name): saved[name] for name in saved.files}
    return Kept(rows, images, about)


def _key(name: str) -> tuple[str, str, str]:
    variant, when, block = name.split("/")
    return variant, when, block
