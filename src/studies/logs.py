"""What a job said last."""

from pathlib import Path

from src.studies.states import State
from src.studies.table import Table


def last_words(table: Table, state: State, lines: int) -> str:
    """The state of a job, its error with the traceback, and the last lines of its log.

    A job that died before it had a log, or too fast to write into it, has said something to its output.
    """
    record = state.record or {}
    head = f"=== {state.job}: {state.status}, {len(record.get('attempts') or [])} attempt(s), {state.folder}"
    parts = [head]
    error = record.get("error")
    if error:
        parts.append((error["traceback"] or f"{error['type']}: {error['message']}").rstrip())
    for path in (state.folder / "log.txt", table.output(state.job)):
        if said := _tail(path, lines):
            parts.append(f"--- {path}\n{said}")
    return "\n".join(parts) + "\n"


def _tail(path: Path, lines: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 400 * lines))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
