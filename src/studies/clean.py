"""What lies below a study's runs and no longer matches it: runs of other configs or code, reruns, old tables."""

import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from src.runs.process import LOST_AFTER
from src.runs.record import OLD, last_sign_of_life, read_record
from src.studies.definition import Study, StudyError
from src.studies.freeze import freeze
from src.studies.snapshot import SNAPSHOTS
from src.studies.states import states
from src.studies.table import TABLES, Table, find_tables, read_table


@dataclass(frozen=True)
class Leftover:
    """A file or folder that nothing needs, and why."""

    path: Path
    why: str

    def __str__(self) -> str:
        return f"{_megabytes(self.path):9.1f} MB  {self.path}  ({self.why})"


def leftovers(study: Study, runs: Path) -> list[Leftover]:
    """Everything that can be removed without losing what a table of `study` asks for, as its files are now.

    Runs that a process is at are never among it. Where a table can't be made anew, since its data are elsewhere, say,
    its runs are kept.
    """
    tables, kept = [], set()
    for path in find_tables(runs, study.name):
        try:
            table = read_table(path)
        except StudyError:
            continue  # shown below, as a table of no use
        if any(state.status == "running" for state in states(table)):
            kept.add(table.key)  # a runner may be at it
        try:
            now = freeze(study.with_seeds(tuple(dict.fromkeys(job.seed for job in table.jobs))), table.asked)
        except ValueError:
            now = table
        tables.append(now)
        kept.add(now.key)
    if not tables:
        tables = [freeze(study, [f"runs={runs}"])]
    wanted = {job.identity for table in [*tables, *_others(runs, study.name)] for job in table.jobs}
    return [
        *_runs(runs / study.name, wanted),
        *_tables(runs, study.name, kept),
        *_snapshots(runs),
    ]


def delete(found: Sequence[Leftover]) -> None:
    """Removes what `leftovers` gave, unless a process has begun to use it since."""
    for leftover in found:
        if leftover.path.is_dir():
            record = read_record(leftover.path)
            if record is None or record["status"] != "running":
                shutil.rmtree(leftover.path)
        else:
            leftover.path.unlink(missing_ok=True)


def _runs(folder: Path, wanted: Collection[str]) -> Iterator[Leftover]:
    for run in sorted(folder.glob("[!.]*/seed*-*")):
        record = read_record(run)
        if record is not None and record["status"] == "running":
            continue
        if OLD in run.name:
            yield Leftover(run, "replaced by a rerun")
        elif run.name.rpartition("-")[2] not in wanted:
            status = "nothing" if record is None else record["status"]
            yield Leftover(run, f"{status}; another config, or other data or code, than the study's")


def _tables(runs: Path, study: str, kept: set[str]) -> Iterator[Leftover]:
    for path in sorted((runs / study / TABLES).glob("*.json")):
        if path.stem not in kept:
            yield Leftover(path, "a table of the study as it was")
            if path.with_suffix("").is_dir():
                yield Leftover(path.with_suffix(""), "what that table's jobs printed")


def _others(runs: Path, study: str) -> Iterator[Table]:
    """Tables of other studies, which may count runs of this one as theirs."""
    for path in runs.glob(f"*/{TABLES}/*.json"):
        if path.parents[1].name != study:
            with suppress(StudyError):
                yield read_table(path)


def _snapshots(runs: Path) -> Iterator[Leftover]:
    """Copies of the code that no table of any study names."""
    named = set()
    for path in runs.glob(f"*/{TABLES}/*.json"):
        try:
            named.add(read_table(path).code)
        except StudyError:
            continue
    for folder in sorted((runs / SNAPSHOTS).glob("*")):
        fresh = time.time() - (last_sign_of_life(folder) or 0.0) < LOST_AFTER  # a table may be about to name it
        if folder.name not in named and not fresh:
            yield Leftover(folder, "code that no table runs")


def _megabytes(path: Path) -> float:
    if path.is_file():
        return path.stat().st_size / 1e6
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink()) / 1e6
