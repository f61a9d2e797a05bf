"""`record.json`: everything known about a run, in one file that is always whole.

Writers replace the file, so a reader sees the old record or the new one, and a full disk leaves the old
one. The status on disk is what the run last said; `read_record` corrects it for runs that died silently.

Disks damage files too. A checksum tells, and `record-copy.json`, the record as of the last attempt's begin or
end, stands in. A finished run is never begun again in its folder, so a copy that says "finished" stays true.
"""

import functools
import hashlib
import json
import logging
import math
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from src.runs.process import fate

log = logging.getLogger(__name__)

RECORD, COPY, HEARTBEAT, PROGRESS = "record.json", "record-copy.json", "heartbeat", "progress.json"
OLD = "-old-"  # in the name of a folder that a rerun moved aside

# "running" until one of the others; "lost" and "damaged" are only ever concluded by a reader.
STATUSES = ("running", "finished", "failed", "diverged", "interrupted", "lost", "damaged")

ADDED = ("folder", "heartbeat", "recovered")  # what `read_record` adds to what is on disk


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
        write_json(self.path, sealed(self.data))

    def copy(self) -> None:
        """Writes `record-copy.json`; where that fails the record itself is still there, so it is only said."""
        try:
            write_json(self.path.with_name(COPY), sealed(self.data))
        except OSError as error:
            log.warning("%s has no copy of this attempt (%s)", self.path, error)


def read_record(folder: str | Path) -> dict[str, Any] | None:
    """The record in `folder` as it is true now, or None where there is none.

    Adds `folder`, and `heartbeat`, the last sign of life (UTC). Where the file is damaged or gone, its copy is
    read, and `recovered` is true. Without a whole copy either, the status is "damaged", and there is an `error`;
    only an unreadable disk raises.
    """
    path = Path(folder) / RECORD
    seen = last_sign_of_life(path, path.with_name(HEARTBEAT))
    silence = math.inf if seen is None else time.time() - seen
    extra = {"folder": str(folder), "heartbeat": None if seen is None else utc(seen)}
    record, problem = _read(path, silence)
    if record is not None:
        return {**record, **extra}
    copied, problem_of_copy = _read(path.with_name(COPY), silence)
    if copied is not None:
        _warn_once(f"{path} {problem or 'is gone'}; {COPY} is read instead")
        return {**copied, **extra, "recovered": True}
    if problem is None and problem_of_copy is None:
        return None
    message = f"{path.name} {problem or 'is gone'}; start the job again, checkpoints are kept"
    return {**extra, "status": "damaged", "error": {"type": "Damaged", "message": message, "traceback": ""}}


def _read(path: Path, silence: float) -> tuple[dict[str, Any] | None, str | None]:
    """The whole record at `path`, its status as it is after `silence` seconds; or None, and what is wrong with it.

    Nothing is wrong where there is no file.
    """
    try:
        record = json.loads(path.read_bytes())
        said = record.pop("checksum", None)  # records of before there were checksums have none
        if said is not None and said != _checksum(record):
            raise ValueError("its checksum is that of another content")
        if record["status"] not in STATUSES:
            raise ValueError(f"unknown status {record['status']!r}")
        if record["status"] == "running":
            record["status"] = fate(record["attempts"][-1], silence)
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        return None, f"is not a whole record ({error})"
    return record, None


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as it stands on disk: plain data with its checksum."""
    content = plain({key: value for key, value in record.items() if key not in (*ADDED, "checksum")})
    return {**content, "checksum": _checksum(content)}


def _checksum(content: Mapping[str, Any]) -> str:
    """Of the values, however the file is laid out."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)


def read_progress(folder: str | Path) -> dict[str, Any] | None:
    """What `src.callbacks.progress_file` last wrote about the run in `folder`; None if there is nothing whole."""
    try:
        progress = json.loads((Path(folder) / PROGRESS).read_bytes())
    except (OSError, ValueError):
        return None
    return progress if isinstance(progress, dict) else None


def find_records(root: str | Path, *, old: bool = False) -> Iterator[dict[str, Any]]:
    """Every record below `root`, in the order of the paths, hidden folders left out.

    Args:
        old: also runs that a rerun replaced.
    """
    for at, folders, files in os.walk(root):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        if not old:
            folders[:] = [folder for folder in folders if OLD not in folder]
        if RECORD in files or COPY in files:
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


def write_json(path: Path, data: Any, *, durable: bool = True) -> None:
    """Replaces `path` by `data` in one step; see `replacing`."""
    write_atomically(path, json.dumps(plain(data), indent=1, allow_nan=False) + "\n", durable=durable)


def write_atomically(path: Path, text: str, *, durable: bool = True) -> None:
    """Replaces `path` by `text` in one step; see `replacing`."""
    with replacing(path, durable=durable) as file:
        file.write(text.encode())


@contextmanager
def replacing(path: Path, *, durable: bool = True, keep: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path`, in one step, once the block is done.

    Args:
        path: in a folder that exists.
        durable: whether to wait until it is on the disk, so that it outlasts a power cut.
        keep: the name, in the same folder, that what was at `path` then has.

    Raises:
        OSError: the disk is full or gone; `path` is untouched, as it is when the block raises.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())  # or a power cut may leave the new name on an empty file
        # mkstemp makes files private; give what open() would have, so that colleagues can read the results.
        os.chmod(temporary, 0o666 & ~_umask())
        if keep is not None and path.exists():
            _name_also(path, keep)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(path.parent)


def _name_also(path: Path, name: Path) -> None:
    """Gives what is at `path` the name `name` too: at every instant something whole has the first."""
    link = path.with_name(f".{name.name}.{uuid.uuid4().hex[:8]}")
    try:
        os.link(path, link)
    except OSError:  # a folder, or a disk without links
        os.replace(path, name)
        return
    try:
        os.replace(link, name)
    finally:
        link.unlink(missing_ok=True)  # still there if both were the same file already


def _sync_folder(folder: Path) -> None:
    """So that a power cut doesn't undo a renaming. Not every system and network disk can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
