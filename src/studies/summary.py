"""A study's states, counted: by state and by variant, with the pace so far and the time left."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import mean, stdev
from typing import Any

from src.studies.states import STATES, TO_DO, State
from src.studies.table import Table


def summary(table: Table, found: Sequence[State], workers: int = 0) -> dict[str, Any]:
    """What `status --json` prints, as plain data.

    `seconds_left` is None if nothing runs, and before anything tells how long a job takes.

    Args:
        workers: that are at it, if the caller knows; else as many as jobs run at this moment.
    """
    counts = Counter(state.status for state in found)
    running = [state for state in found if state.status == "running"]
    left, at_it = work_left(found), workers or len(running)
    return {
        "study": table.study,
        "table": table.key,
        "question": table.question,
        "asked": list(table.asked),
        "counts": {status: counts[status] for status in STATES if counts[status]},
        "jobs_per_hour": _jobs_per_hour(found),
        "seconds_left": None if left is None or not at_it else left / at_it,
        "variants": [_variant(name, [s for s in found if s.job.name == name]) for name in table.variants],
        "jobs": [_job(state) for state in found],
    }


def work_left(found: Sequence[State]) -> float | None:
    """Seconds of work that jobs still need, one after the other; None while nothing tells how long a job takes."""
    took = seconds_by_variant(found)
    known = [seconds for each in took.values() for seconds in each]
    total = 0.0
    for state in found:
        if state.status not in (*TO_DO, "running"):
            continue
        each = took.get(state.job.name)
        whole = mean(each) if each else mean(known) if known else None
        told = (state.progress or {}).get("seconds_left")
        if told is not None:
            total += told
        elif whole is None:
            return None
        else:
            total += whole
    return total


def seconds_by_variant(found: Sequence[State]) -> dict[str, list[float]]:
    """What finished runs took."""
    took: dict[str, list[float]] = {}
    for state in found:
        if state.status == "finished" and state.seconds:
            took.setdefault(state.job.name, []).append(state.seconds)
    return took


def _jobs_per_hour(found: Sequence[State]) -> float | None:
    """Over the time from the first start to the last end of the finished runs, whoever computed them."""
    records = [state.record for state in found if state.status == "finished" and state.record]
    times = [(record["started"], record["ended"]) for record in records if record.get("ended")]
    if not times:
        return None
    first, last = min(start for start, _ in times), max(end for _, end in times)
    seconds = (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
    return 3600 * len(times) / seconds if seconds > 0 else None


def _variant(name: str, found: Sequence[State]) -> dict[str, Any]:
    counts = Counter(state.status for state in found)
    current = [state.progress["metrics"].get("val/acc1") for state in found if state.progress]
    tested = [state.metrics["test/acc1"] for state in found if "test/acc1" in state.metrics]
    took = seconds_by_variant(found).get(name)
    return {
        "name": name,
        "jobs": len(found),
        "counts": {status: counts[status] for status in STATES if counts[status]},
        "val/acc1 of running": [value for value in current if value is not None],
        "test/acc1": mean(tested) if tested else None,
        "test/acc1 sd": stdev(tested) if len(tested) > 1 else None,
        "seconds": mean(took) if took else None,
    }


def _job(state: State) -> dict[str, Any]:
    record = state.record or {}
    error = record.get("error") or {}
    return {
        "name": state.job.name,
        "seed": state.job.seed,
        "identity": state.job.identity,
        "status": state.status,
        "folder": str(state.folder),
        "attempts": len(record.get("attempts") or []),
        "seconds": state.seconds,
        "error": f"{error['type']}: {error['message']}".splitlines()[0] if error else None,
        "progress": state.progress,
        "metrics": state.metrics or None,
    }


def now() -> str:
    """The time of day, for lines of a log."""
    return datetime.now(UTC).astimezone().strftime("%H:%M:%S")
