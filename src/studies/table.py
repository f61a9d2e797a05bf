"""A study frozen: every job with its resolved config, before the first one starts.

    runs/<study>/.tables/<key>.json    the table; <key> is a hash of what it holds
    runs/.code/<version>/              the code that its jobs run

Whatever is edited afterwards, the jobs of a table do what it says. The table is all that a job, a status or another
machine needs, so reading it needs neither torch nor Hydra.
"""

import copy
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from src.runs.identity import canonical_text, digest, identity, run_folder
from src.runs.record import write_atomically
from src.studies.definition import StudyError

TABLES = ".tables"

Path_ = tuple[str, ...]  # keys that lead to a value of a config


@dataclass(frozen=True)
class Job:
    """One run of a study: a variant and a seed."""

    name: str
    seed: int
    identity: str

    def __str__(self) -> str:
        return f"{self.name}/seed{self.seed}"


@dataclass(frozen=True)
class Variant:
    """A row with its resolved config.

    Attributes:
        config: of one seed.
        seed_at: where the seed stands in it.
        published: the paper's figures, or None.
    """

    name: str
    config: Mapping[str, Any]
    seed_at: tuple[Path_, ...]

    def with_seed(self, seed: int) -> dict[str, Any]:
        """The config of another seed."""
        config = copy.deepcopy(dict(self.config))
        for *to, last in self.seed_at:
            functools.reduce(lambda at, key: at[key], to, config)[last] = seed
        return config


@dataclass(frozen=True)
class Table:
    """The jobs of a study.

    Attributes:
        asked: what distinguishes it from other tables of the study, for people: overrides and seeds.
        runs: the folder of all studies.
        code: the version of the snapshot that the jobs run, or None where they aren't to run.
    """

    study: str
    question: str
    asked: tuple[str, ...]
    runs: Path
    variants: Mapping[str, Variant]
    jobs: tuple[Job, ...]
    code: str | None = None

    @functools.cached_property
    def key(self) -> str:
        """Ten hexadecimal digits of everything that the jobs depend on."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()[:10]

    @property
    def path(self) -> Path:
        return self.runs / self.study / TABLES / f"{self.key}.json"

    def with_code(self, version: str) -> "Table":
        return replace(self, code=version)

    def config(self, job: Job) -> dict[str, Any]:
        return self.variants[job.name].with_seed(job.seed)

    def folder(self, job: Job) -> Path:
        """Where the job's run goes if this study computes it."""
        return run_folder(self.runs, self.study, job.name, job.seed, job.identity)

    def output(self, job: Job) -> Path:
        """What its processes print, also before they have a run's folder."""
        return self.path.with_suffix("") / f"{job.name}-seed{job.seed}.out"

    def job(self, name: str, seed: int) -> Job:
        """Raises StudyError if there is no such job."""
        for job in self.jobs:
            if (job.name, job.seed) == (name, seed):
                return job
        raise StudyError(f"study {self.study} has no job {name}/seed{seed}; see python -m src.study status")

    def write(self, folder: Path | None = None) -> Path:
        """Puts the table where its jobs find it, which makes it the study's latest, or into another folder."""
        path = self.path if folder is None else folder / self.path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({**self._content(), "code": self.code}) + "\n")
        return path

    def _content(self) -> dict[str, Any]:
        return {
            "study": self.study,
            "question": self.question,
            "asked": list(self.asked),
            "variants": {
                name: {"config": variant.config, "seed_at": [list(to) for to in variant.seed_at]}
                for name, variant in self.variants.items()
            },
            "jobs": [[job.name, job.seed, job.identity] for job in self.jobs],
        }


def read_table(path: Path, runs: Path | None = None) -> Table:
    """The table at `path`, which lies in `runs/<study>/.tables/`.

    Raises:
        StudyError: it isn't whole.
    """
    try:
        text = json.loads(path.read_bytes())
        variants = {
            name: Variant(name, part["config"], tuple(tuple(to) for to in part["seed_at"]))
            for name, part in text["variants"].items()
        }
        table = Table(
            text["study"],
            text["question"],
            tuple(text["asked"]),
            runs or path.parents[2],
            variants,
            tuple(Job(*job) for job in text["jobs"]),
            text["code"],
        )
        whole = table.key == path.stem
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path} isn't a whole table ({error}); remove it, then run the study again") from None
    if not whole:
        raise StudyError(f"{path} was changed since it was written; remove it, then run the study again")
    return table


def find_tables(runs: Path, study: str) -> list[Path]:
    """Tables of a study, the latest first."""
    folder = runs / study / TABLES
    return sorted(folder.glob("*.json"), key=lambda path: (-path.stat().st_mtime, path.name))


def jobs_of(variants: Iterable[Variant], seeds: Iterable[int]) -> tuple[Job, ...]:
    """All variants with all seeds, seed by seed: whatever is finished first can be compared.

    Identities of thousands of seeds are made from one canonical text per variant.
    """
    seeds, marker = tuple(seeds), 7_340_981_264_125_739_001  # a number that nobody has in a config
    texts = {}
    for variant in variants:
        text = canonical_text(variant.with_seed(marker))
        assert text.count(str(marker)) == len(variant.seed_at)
        texts[variant.name] = text
        assert digest(text.replace(str(marker), str(seeds[0]))) == identity(variant.with_seed(seeds[0]))
    return tuple(
        Job(name, seed, digest(text.replace(str(marker), str(seed)))) for seed in seeds for name, text in texts.items()
    )
