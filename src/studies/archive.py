"""Finished runs between machines: `pack` them into one file there, `unpack` it among the runs here.

The file is an ordinary .tar.gz. Its first member, manifest.json, lists the runs and the SHA-256 of every file; the
same runs always give the same bytes. Checkpoints, claims and W&B's files stay where they are, and so do the paths of
the machine: in records and logs the folder of runs is `runs`, the project's `.`, and the user's `~`. The study's table
travels along, so that what is still missing is known there too.

An archive may come from anywhere, so `unpack` believes nothing: what it writes is bounded in place, kind and size,
and all of it is verified in a hidden folder before the first run is moved to its place. That finds accidents and
edited configs. It can't find a forged metric: nothing is signed.
"""

import gzip
import hashlib
import json
import logging
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Self

from src.runs import claims
from src.runs.identity import identity, run_folder
from src.runs.record import COPY, RECORD, read_record, sealed
from src.runs.session import set_aside
from src.studies.definition import StudyError
from src.studies.table import TABLES, Table, read_table

log = logging.getLogger(__name__)

FORMAT, MANIFEST = 1, "manifest.json"

# Far above what runs leave behind (a few MB each), far below what fills a disk.
MAX_FILE = 64 * 2**20
MAX_TOTAL = 4 * 2**30
MAX_FILES = 100_000

# What describes the result. Speed and memory describe the machine, and may differ.
RESULT = ("val/acc1", "test/acc1", "test/loss", "best_epoch", "test/acc1_per_class")

_FOLDER = re.compile(r"([^./\\][^/\\]{0,127}/){2}seed[0-9]+-[0-9a-f]+")
_FILE = re.compile(
    r"record\.json|(predictions|points)\.npz|log\.txt|git(-attempt[0-9]+)?\.diff|curves/[\w-]+/[\w-]+\.csv", re.A
)
_TABLE = re.compile(rf"[^./\\][^/\\]{{0,127}}/{re.escape(TABLES)}/[0-9a-f]{{10}}\.json", re.A)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK = 2**20

PROJECT = Path(__file__).resolve().parents[2]


class ArchiveError(ValueError):
    """Runs that can't be packed, or an archive that can't be merged. One line."""


@dataclass(frozen=True)
class Merged:
    """Folders study/variant/seedN-identity of an archive, by what became of them.

    Attributes:
        added: they are here now.
        known: they were here already, with the same result.
        contradictions: they were here already with another result, which was kept.
    """

    added: list[str]
    known: list[str]
    contradictions: list[str]


# ---------------------------------------------------------------------------------------------- pack


def pack(folders: Sequence[Path], runs: Path, archive: Path, table: Table | None = None) -> int:
    """Writes the finished ones of `folders` into `archive`, and returns how many they are.

    Args:
        folders: of single runs.
        runs: the folder of all studies, in which they lie.
        table: of their study; None for runs without one.

    Raises:
        ArchiveError: none is finished; or one is no run, isn't what its record says, or is too large.
        OSError: the disk is full; what was at `archive` is still there.
    """
    files: dict[str, Path] = {}
    entries = []
    hide = _paths_to_hide(runs)
    for folder in sorted({_relative(folder, runs) for folder in folders}):
        record = read_record(runs / folder)
        if record is None or record["status"] != "finished":
            continue
        entries.append(_entry(folder, record))
        files |= _files(folder, runs, recovered=record.get("recovered", False))
    if not entries:
        raise ArchiveError(f"none of {len(folders)} runs is finished, so there is nothing to pack; choose others")
    if len(files) > MAX_FILES or sum(path.stat().st_size for path in files.values()) > MAX_TOTAL:
        raise ArchiveError(
            f"{len(entries)} runs are {len(files)} files, above the limit of {MAX_FILES}, or larger than "
            f"{MAX_TOTAL // 2**30} GiB; pack fewer at a time"
        )

    hashes = {name: hashlib.sha256(_content(path, hide)).hexdigest() for name, path in sorted(files.items())}
    tables = {} if table is None else _table_file(table, hide)
    manifest = {
        "format": FORMAT,
        "files": hashes | {name: hashlib.sha256(content).hexdigest() for name, content in tables.items()},
        "runs": entries,
    }
    archive.parent.mkdir(parents=True, exist_ok=True)
    with (
        _replacing(archive) as file,
        # Neither the time nor a file name, which gzip would write.
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        _add(tar, MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
        for name, content in tables.items():
            _add(tar, name, content)
        for name, sha256 in hashes.items():
            content = _content(files[name], hide)
            if hashlib.sha256(content).hexdigest() != sha256:
                raise ArchiveError(f"{files[name]} changed while it was packed; pack again")
            _add(tar, name, content)
    return len(entries)


def _relative(folder: Path, runs: Path) -> str:
    # Not resolved: a study may be a link to another disk.
    inside = Path(os.path.relpath(folder, runs)).as_posix()
    if not _is_run(inside):
        raise ArchiveError(f"{folder} is no run; archives take folders study/variant/seedN-identity below {runs}")
    return inside


def _files(folder: str, runs: Path, *, recovered: bool) -> dict[str, Path]:
    """The files of a run that travel, by their names in the archive."""
    at = runs / folder
    found = {path.relative_to(at).as_posix(): path for path in (*at.iterdir(), *at.glob("curves/*/*"))}
    found = {name: path for name, path in found.items() if _FILE.fullmatch(name) and path.is_file()}
    if recovered:
        found[RECORD] = at / COPY
    return {f"{folder}/{name}": path for name, path in found.items()}


def _content(path: Path, hide: Sequence[tuple[re.Pattern[str], str]]) -> bytes:
    """What travels of a file."""
    with path.open("rb") as file:
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise ArchiveError(
            f"{path} is larger than {MAX_FILE // 2**20} MiB, the limit in archives; shorten or remove it"
        )
    if path.name in (RECORD, COPY):
        record = sealed(_without_paths(json.loads(content), hide))
        return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()
    if path.suffix in (".txt", ".diff"):
        return _without_paths(content.decode(errors="replace"), hide).encode()
    return content


def _table_file(table: Table, hide: Sequence[tuple[re.Pattern[str], str]]) -> dict[str, bytes]:
    """The table, to be read and not to be run: the code that its jobs run stays here."""
    variants = {
        name: replace(variant, config=_without_paths(variant.config, hide)) for name, variant in table.variants.items()
    }
    asked = tuple(override for override in table.asked if not override.startswith("runs="))
    travelling = replace(table, variants=variants, asked=asked, code=None)
    with tempfile.TemporaryDirectory() as folder:
        written = travelling.write(Path(folder))
        return {f"{table.study}/{TABLES}/{written.name}": written.read_bytes()}


def _paths_to_hide(runs: Path) -> list[tuple[re.Pattern[str], str]]:
    """What is put in place of paths of this machine, the longest first."""
    known = {str(runs.absolute()): "runs", str(runs.resolve()): "runs", str(PROJECT): ".", str(Path.home()): "~"}
    return [
        (re.compile(re.escape(path) + r"(?![\w.-])"), short)
        for path, short in sorted(known.items(), key=lambda item: -len(item[0]))
        if path != "/"
    ]


def _without_paths(value: Any, hide: Sequence[tuple[re.Pattern[str], str]]) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(child, hide) for key, child in value.items()}
    if isinstance(value, list):
        return [_without_paths(child, hide) for child in value]
    if isinstance(value, str):
        for path, short in hide:
            value = path.sub(short, value)
    return value


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # mtime 0, no owner
    member.size = len(content)
    try:
        tar.addfile(member, BytesIO(content))
    except ValueError as error:
        raise ArchiveError(f"{name} can't be packed ({error}); study and variant need shorter names") from error


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` in one step, if the block succeeds."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# -------------------------------------------------------------------------------------------- unpack


def unpack(archive: Path, runs: Path, *, keep_ours: bool = False) -> Merged:
    """Adds the runs in `archive` to those in `runs`: all of them, or none where something is wrong.

    A run that was begun here but isn't finished is moved aside, as by a rerun, and the finished one takes its place.

    Args:
        runs: the folder of all studies, created if need be.
        keep_ours: where a run is here with another result, keep it and merge the others.

    Raises:
        ArchiveError: the archive is damaged, or not one of `pack`; a run in it isn't what it claims to be, is here
            with another result, or is just being computed here.
        OSError: the archive can't be read, or the disk is full. After a failure in the last step, which moves
            verified runs to their places, the same call adds what is missing.
    """
    runs.mkdir(parents=True, exist_ok=True)
    # Hidden, so that nobody who looks for runs meanwhile finds these.
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=runs) as temporary:
        arrived = Path(temporary)
        try:
            manifest = _extract(archive, arrived)
            records = _verified(arrived, manifest)
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, RecursionError) as error:
            raise ArchiveError(
                f"{archive} is damaged or no archive of runs ({error}); fetch or pack it again"
            ) from error
        except ArchiveError as error:
            raise ArchiveError(f"{archive}: {error}; nothing was merged") from error
        return _merge(arrived, records, runs, keep_ours)


class _Member(tarfile.TarInfo):
    """A regular file of limited size. Checked before tarfile acts on the header: it reads extensions whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise ArchiveError(f"{member.name!r} is no regular file, and only those may be in it")
        if not 0 <= member.size <= MAX_FILE:
            raise ArchiveError(f"{member.name!r} has {member.size} bytes; the limit is {MAX_FILE}")
        return member


def _extract(archive: Path, into: Path) -> dict[str, Any]:
    """Writes exactly the files that the manifest names, and returns it."""
    with (
        archive.open("rb") as file,
        gzip.GzipFile(fileobj=file) as unzipped,
        tarfile.open(fileobj=unzipped, mode="r|", tarinfo=_Member) as tar,
    ):
        members = iter(tar)
        first = next(members, None)
        if first is None or first.name != MANIFEST:
            raise ArchiveError(f"it doesn't begin with {MANIFEST}, so it holds no runs")
        manifest = _manifest(_reader(tar, first).read())
        missing, total = dict(manifest["files"]), 0
        for member in members:
            sha256 = missing.pop(member.name, None)
            if sha256 is None:
                raise ArchiveError(f"{member.name!r} is in it twice, or not in its manifest")
            total += member.size
            if total > MAX_TOTAL:
                raise ArchiveError(f"it unpacks to more than {MAX_TOTAL // 2**30} GiB, the limit")
            if _write(_reader(tar, member), into / member.name) != sha256:
                raise ArchiveError(f"{member.name!r} isn't what its SHA-256 says")
        if missing:
            raise ArchiveError(f"{min(missing)!r} is in its manifest, but missing")
    return manifest


def _reader(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    reader = tar.extractfile(member)
    assert reader is not None, "regular files have one"
    return reader


def _write(source: IO[bytes], path: Path) -> str:
    sha256 = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        while chunk := source.read(_CHUNK):
            sha256.update(chunk)
            file.write(chunk)
        os.fsync(file.fileno())
    return sha256.hexdigest()


def _manifest(text: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(text)
        found, files, _ = manifest["format"], manifest["files"], manifest["runs"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArchiveError(f"its {MANIFEST} can't be read ({error!r})") from error
    if found != FORMAT:
        raise ArchiveError(f"its format is {found!r}, and this version reads {FORMAT}")
    if not isinstance(files, dict) or not 0 < len(files) <= MAX_FILES:
        raise ArchiveError(f"its {MANIFEST} must name 1 to {MAX_FILES} files")
    for name, sha256 in files.items():
        *folder, rest = name.split("/", 3)
        if not _TABLE.fullmatch(name) and not (_is_run("/".join(folder)) and _FILE.fullmatch(rest)):
            raise ArchiveError(f"{name!r} is no file of a run that archives take")
        if not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
            raise ArchiveError(f"{name!r} has {sha256!r} as its SHA-256")
    return manifest


def _is_run(folder: str) -> bool:
    return bool(_FOLDER.fullmatch(folder)) and folder.isprintable()


def _verified(arrived: Path, manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The records of all runs, by their folders, each of them what its folder and the manifest say."""
    records = {}
    for name in filter(_TABLE.fullmatch, manifest["files"]):
        try:
            read_table(arrived / name)
        except StudyError as error:
            raise ArchiveError(f"{name} isn't a whole table ({error})") from error
    for folder in sorted({"/".join(name.split("/")[:3]) for name in manifest["files"] if not _TABLE.fullmatch(name)}):
        record = read_record(arrived / folder)
        if record is None:
            raise ArchiveError(f"{folder} has no {RECORD}")
        if record["status"] != "finished":
            raise ArchiveError(f"the record of {folder} is {record['status']}, and only finished runs travel")
        records[folder] = record
    if manifest["runs"] != [_entry(folder, record) for folder, record in records.items()]:
        raise ArchiveError(f"the runs that its {MANIFEST} lists aren't those whose records are in it")
    return records


def _entry(folder: str, record: dict[str, Any]) -> dict[str, Any]:
    """A finished run's line in the manifest.

    Raises:
        ArchiveError: its config gives another folder or identity than those it claims.
    """
    try:
        cfg = record["config"]
        claimed = {key: record[key] for key in ("study", "name", "seed", "identity")}
        true = {**{key: cfg[key] for key in ("study", "name", "seed")}, "identity": identity(cfg)}
        place = run_folder("", *true.values()).as_posix()
        accuracy = record["metrics"].get("test/acc1")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArchiveError(f"the record of {folder} isn't that of a finished run ({error!r})") from error
    if claimed != true or place != folder:
        raise ArchiveError(
            f"{folder} isn't the run of the config in its record, which is {place}: edited, or of another version; "
            f"leave it out"
        )
    return {
        "folder": folder,
        "identity": record["identity"],
        "name": record["name"],
        "seed": record["seed"],
        "test/acc1": accuracy,
    }


# --------------------------------------------------------------------------------------------- merge


def _merge(arrived: Path, records: dict[str, dict[str, Any]], runs: Path, keep_ours: bool) -> Merged:
    merged = Merged(added=[], known=[], contradictions=[])
    claimed: dict[str, claims.Claim] = {}
    try:
        for folder, theirs in records.items():
            # Of a run that is begun here, say so first: only then its record stays as it is.
            if (runs / folder).exists() and not _finished(runs / folder):
                claimed[folder] = _take(runs / folder)
            ours = _finished(runs / folder)
            if ours is None:
                merged.added.append(folder)
            elif difference := _difference(ours["metrics"], theirs["metrics"]):
                contradiction = f"{folder} has another result here than in the archive: {difference}"
                if not keep_ours:
                    raise ArchiveError(f"{contradiction}; nothing was merged, --keep-ours merges the others")
                log.warning("%s; ours is kept", contradiction)
                merged.contradictions.append(folder)
            else:
                merged.known.append(folder)
        for folder in merged.added:
            if folder in claimed:
                claimed[folder] = set_aside(runs / folder, claimed[folder])
            _move_in(arrived / folder, runs / folder)
        for table in arrived.glob(f"*/{TABLES}/*.json"):
            place = runs / table.relative_to(arrived)
            place.parent.mkdir(parents=True, exist_ok=True)
            table.replace(place)
    finally:
        for claim in claimed.values():
            claim.release()
    return merged


def _finished(folder: Path) -> dict[str, Any] | None:
    record = read_record(folder)
    return record if record and record["status"] == "finished" else None


def _difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """The first number of the result in which two runs differ, in words; nothing if there is none."""
    for key in RESULT:
        if ours.get(key) != theirs.get(key):
            return f"{key} is {ours.get(key)} here and {theirs.get(key)} there"
    return ""


def _take(folder: Path) -> claims.Claim:
    try:
        return claims.take(folder)
    except claims.Held as held:
        raise ArchiveError(
            f"{folder} is being computed by {held}; nothing was merged, wait for it or stop it"
        ) from None


def _move_in(source: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(folder)
    except OSError as error:
        if not folder.exists():
            raise
        raise ArchiveError(
            f"{folder} was begun at this moment ({error.strerror}); wait for it, then unpack again"
        ) from error
