"""What a page says of a single run: its record, the last lines of its log, where its config is its own."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.reports.page.shared import Shared
from src.runs.record import plain
from src.studies.states import State
from src.studies.table import Table

LOG_LINES, LINE, TRACEBACK = 40, 400, 20_000  # the last lines, and characters of each; characters of a traceback

_OF_ATTEMPT = ("start", "end", "status", "resume_from")  # and nothing of the machine and its processes


def rounded(value: Any, digits: int = 5) -> Any:
    """Plain data with numbers of so many digits; JSON has no word for those that aren't finite, which become None."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(child, digits) for key, child in value.items()}
    return [rounded(child, digits) for child in value] if isinstance(value, list | tuple) else value


def flat(config: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Values by dotted keys; an empty mapping is a value too."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flat(value, f"{at}{key}.") if isinstance(value, Mapping) and value else {f"{at}{key}": plain(value)}
    return found


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config flat, without where its results were kept: packed runs have forgotten it, and show the same page."""
    return flat({key: value for key, value in config.items() if key != "runs"})


def run(
    state: State, table: Table, environments: Shared, config: Mapping[str, Any], log_characters: int
) -> dict[str, Any]:
    """A job as it is now.

    Args:
        environments: where versions and hardware are kept, which most runs share.
        config: the flat one of its variant, from which only deviations are told.
        log_characters: of the log, at most.
    """
    record = state.record or {}
    about = {"id": str(state.job), "variant": state.job.name, "seed": state.job.seed, "status": state.status}
    if state.record is None:
        return {**about, "identity": state.job.identity, "log": _log(state, table, log_characters)}
    hardware = {key: value for key, value in (record.get("hardware") or {}).items() if key != "host"}
    environment = {"versions": record.get("versions") or {}, "hardware": hardware, "code": record.get("git") or {}}
    own = settings(record["config"]) if "config" in record else dict(config)
    return {
        **about,
        "identity": state.job.identity,
        "folder": str(state.folder.absolute()),
        "started": record.get("started"),
        "ended": record.get("ended"),
        "seconds": rounded(state.seconds),
        "params": record.get("params"),
        "macs": record.get("macs"),
        "data": record.get("data_fingerprint"),
        "metrics": rounded(plain(state.metrics)),
        "environment": environments.number(plain(environment)),
        "attempts": [{key: plain(each.get(key)) for key in _OF_ATTEMPT} for each in record.get("attempts") or []],
        "progress": rounded(plain(state.progress)),
        "error": _error(record.get("error")),
        "log": _log(state, table, log_characters),
        "config": {key: value for key, value in own.items() if key not in config or config[key] != value},
        "without": [key for key in config if key not in own],
    }


def _error(error: Mapping[str, Any] | None) -> dict[str, str] | None:
    if not error:
        return None
    return {key: str(error.get(key) or "")[-TRACEBACK:] for key in ("type", "message", "traceback")}


def _log(state: State, table: Table, characters: int) -> str:
    """The last lines of its log; of a job that died before it had one, of what its process printed."""
    for path in (state.folder / "log.txt", table.output(state.job)):
        lines = _tail(path).splitlines()[-LOG_LINES:]
        kept: list[str] = []
        for line in (line[:LINE] for line in reversed(lines)):
            characters -= len(line) + 1
            if characters < 0:
                break
            kept.insert(0, line)
        if kept:
            return "\n".join(kept)
    return ""


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LINE * LOG_LINES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
