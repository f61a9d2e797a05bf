"""What has become of each job of a study, read from the run folders: the only state that there is.

A look costs three levels of folder names and the records of this study's runs: less than a second for a thousand.
Beyond some 100,000 runs the names would be the cost: then variants' folders would be split by the first two digits of
their identities, and each study would keep an index of records (folder, change time, status, metrics), written by
whoever looks, in which only what has changed is read again.
"""

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.runs.record import OLD, read_progress, read_record
from src.studies.table import Job, Table

# From "still to do" to "done". "waiting" was never begun; the others are those of a record.
STATES = ("waiting", "running", "interrupted", "lost", "damaged", "failed", "diverged", "finished")
TO_DO = ("waiting", "interrupted", "lost", "damaged", "failed")  # what `run` starts or goes on with

_RUN = re.compile(r"seed\d+-(\w{10})")


@dataclass(frozen=True)
class State:
    """A job as it is now.

    Attributes:
        status: one of `STATES`.
        folder: where its run is, or will be.
        record: of the run; None before it begins.
        progress: how far a running one is; None if it isn't or hasn't said so.
    """

    job: Job
    status: str
    folder: Path
    record: Mapping[str, Any] | None = None
    progress: Mapping[str, Any] | None = None

    @property
    def metrics(self) -> Mapping[str, Any]:
        return (self.record or {}).get("metrics") or {}

    @property
    def seconds(self) -> float | None:
        """What the job took, the start of its process included; None before it has a record."""
        record = self.record or {}
        return record.get("wall_seconds") and record["wall_seconds"] + (record.get("startup_seconds") or 0.0)


def states(table: Table, before: Sequence[State] = ()) -> list[State]:
    """All jobs of `table`, in its order.

    A run of the same identity counts wherever it lies below `runs`: under another study or name, it is the same
    experiment. If there are several, the best one counts: finished before running, and so on.

    Args:
        before: an earlier answer about this table. What was finished then is so for good and isn't read again, so that
            a look during a study costs what has changed since, and not what is done.
    """
    done = {state.job: state for state in before if state.status == "finished"}
    places = _places(table.runs, {job.identity for job in table.jobs if job not in done})
    return [done.get(job) or _state(table, job, places[job.identity]) for job in table.jobs]


def state_of(table: Table, job: Job) -> State:
    """One job; of a run that is finished where it belongs, no other folder is looked at, however many there are."""
    own = _state(table, job, [table.folder(job)])
    return own if own.status == "finished" else _state(table, job, _places(table.runs, {job.identity})[job.identity])


def _places(runs: Path, identities: set[str]) -> Mapping[str, Sequence[Path]]:
    """Folders of these identities: three levels of names are read, no files."""
    found: dict[str, list[Path]] = defaultdict(list)
    for study in _folders(runs):
        for variant in _folders(study.path):
            for run in _folders(variant.path):
                match = _RUN.fullmatch(run.name)
                if match and match[1] in identities:
                    found[match[1]].append(Path(run.path))
    return found


def _folders(at: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(at) as entries:
            return [entry for entry in entries if entry.name[0] != "." and OLD not in entry.name and entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _state(table: Table, job: Job, places: Sequence[Path]) -> State:
    own = table.folder(job)
    found = []
    for folder in places:
        record = read_record(folder)
        if record is not None:
            found.append(State(job, record["status"], folder, record))
    if not found:
        return State(job, "waiting", own)
    # What happened elsewhere counts only if it is finished, or about to be: other runs are gone on with here.
    here = [state for state in found if state.folder == own]
    best = max(found, key=lambda state: (STATES.index(state.status), state.folder == own))
    running = next((state for state in found if state.status == "running"), None)
    chosen = best if best.status == "finished" else running or (here[0] if here else State(job, "waiting", own))
    if chosen.status != "running":
        return chosen
    return State(job, "running", chosen.folder, chosen.record, read_progress(chosen.folder))
