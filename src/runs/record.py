"""`record.json`: everything known about a run, in one file that is always whole.

Writers replace the file, so a reader sees the old record or the new one, and a full disk leaves the old
one. The status on disk is what the run last said; `read_record` corrects it for runs that died silently.
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from src.runs.process import fate

RECORD, HEARTBEAT = "record.json", "heartbeat"
OLD = "-old-"  # in the name of a folder that a rerun moved aside

# "running" until one of the others; "lost" and "damaged" are only ever concluded by a reader.
STATUSES = ("running", "finished", "failed", "interrupted", "lost", "damaged")


class Record:
    """The record of one run, in memory and on disk.

    Args:
        folder: the run's, which exists.
        fields: the first content; nothing is written before the first `update`.
    """

    def __init__(self, folder: Path, fields: Mapping[str, Any]):
        self.path = folder / RECORD
        self.data: dict[str, Any] = dict(fields)

    def update(self, **fields: Any) -> None:
        """Replaces `fields` and writes the whole record.

        Raises:
            OSError: it could not be written; the record on disk is the one before.
        """
        self.data.update(fields)
        write_json(self.path, self.data)


def read_record(folder: str | Path) -> dict[str, Any] | None:
    """The record in `folder` as it is true now, or None where there is none.

    Adds `folder`, and `heartbeat`, the last sign of life (UTC). A file that is no record gives the status
    "damaged" and an `error`; only an unreadable disk raises.
    """
    path = Path(folder) / RECORD
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    seen = last_sign_of_life(path, path.with_name(HEARTBEAT))
    extra = {"folder": str(folder), "heartbeat": None if seen is None else utc(seen)}
    try:
        record = json.loads(text)
        if record["status"] not in STATUSES:
            raise ValueError(f"unknown status {record['status']!r}")
        if record["status"] == "running":
            silence = math.inf if seen is None else time.time() - seen
            record["status"] = fate(record["attempts"][-1], silence)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        message = f"{path.name} is not a whole record ({error}); start the job again, checkpoints are kept"
        problem = {"type": "Damaged", "message": message, "traceback": ""}
        return {**extra, "status": "damaged", "error": problem}
    return {**record, **extra}


def find_records(root: str | Path, *, old: bool = False) -> Iterator[dict[str, Any]]:
    """Every record below `root`, in the order of the paths; `old` includes runs that a rerun replaced."""
    for at, folders, files in os.walk(root):
        folders.sort()
        if not old:
            folders[:] = [folder for folder in folders if OLD not in folder]
        if RECORD in files:
            folders.clear()  # checkpoints and W&B files: nothing to find there
            record = read_record(at)
            if record is not None:
                yield record


def last_sign_of_life(*paths: Path) -> float | None:
    """Seconds since the epoch when one of `paths` last changed; None if there is none of them."""
    times = []
    for path in paths:
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times, default=None)


def utc(seconds: float | None = None) -> str:
    """`seconds` since the epoch, or now, as ISO 8601."""
    return (datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)).isoformat()


def write_json(path: Path, data: Any) -> None:
    """Replaces `path` by `data` in one step.

    Raises:
        OSError: the disk is full or gone; `path` is untouched.
    """
    write_atomically(path, json.dumps(plain(data), indent=1, allow_nan=False) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Replaces `path` by `text` in one step; see `write_json`."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # or a power cut may leave the new name on an empty file
        # mkstemp makes files private; give what open() would have, so that colleagues can read the results.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def plain(value: Any) -> Any:
    """`value` as JSON can hold it. A number that is not finite becomes None: JSON has no word for it."""
    if isinstance(value, Mapping):
        return {str(key): plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [plain(child) for child in value]
    if hasattr(value, "tolist"):  # a tensor or an array
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _umask() -> int:
    # The only portable way to read it is to set it; where the system shows it, don't touch it.
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    except OSError:
        pass
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
