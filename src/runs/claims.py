"""Exactly one process owns a run, and a dead owner is replaced.

Claims form a chain of files, `claims/0001-first.json`, `claims/0002-after-1f3c9a07.json`, ..., each named
after the token in the one before. The last one owns the run, as long as it lives and has not released it.
To succeed it is to create the next name, which only one process can do. No file is ever taken away from
another process, so none can be taken away too late: that is the race that a single lock file has.

No flock: network disks often only pretend to have it.
"""

import errno
import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

from src.runs.process import LOST_AFTER, fate, this_process
from src.runs.record import HEARTBEAT, last_sign_of_life, utc, write_json

_TRIES = 200  # each waits a little longer than the last: a few seconds, then somebody is certainly at it


class Held(RuntimeError):
    """A living process owns the run; `owner` is what it said about itself."""

    def __init__(self, owner: dict[str, Any]):
        machine = "this" if owner.get("host") == this_process()["host"] else "another"
        super().__init__(f"process {owner.get('pid')} of {machine} machine")
        self.owner = owner


class Claim:
    """The ownership of the run in `folder`, until `release`."""

    def __init__(self, path: Path, owner: dict[str, Any]):
        self.path, self.owner = path, owner

    @property
    def token(self) -> str:
        return self.owner["token"]

    def holds(self) -> bool:
        """False once another process concluded that this one was dead, and went on in its place."""
        return self.path.exists() and not _after(self.path, self.token).exists()

    def moved_to(self, folder: Path) -> "Claim":
        """The same claim, after the run's folder was renamed."""
        return Claim(folder / "claims" / self.path.name, self.owner)

    def release(self) -> None:
        try:
            write_json(self.path, {**self.owner, "released": utc()})
        except OSError:
            # A full disk. Removing needs no space, and makes the claim before, a dead one, the last again.
            if self.holds():
                self.path.unlink(missing_ok=True)


def take(folder: Path) -> Claim:
    """Makes this process the owner of the run in `folder`, which is created if need be.

    Raises:
        Held: a living process owns it.
        OSError: the disk is full or read-only.
    """
    owner: dict[str, Any] = {}
    for attempt in range(_TRIES):
        (folder / "claims").mkdir(parents=True, exist_ok=True)
        chain, following = _walk(folder)
        owner = chain[-1] if chain else {}
        if owner and "released" not in owner and fate(owner, _silence(folder, chain)) == "running":
            raise Held(owner)
        mine = Claim(following, {"token": uuid.uuid4().hex[:8], "since": utc(), **this_process()})
        if _create(mine.path, mine.owner):
            # If a rerun moved the folder away in between, this file hangs in the air of a new folder.
            if any(claim["token"] == mine.token for claim in _walk(folder)[0]):
                return mine
            mine.path.unlink(missing_ok=True)
        time.sleep(0.001 * attempt)
    raise Held(owner)


def _walk(folder: Path) -> tuple[list[dict[str, Any]], Path]:
    """The claims of `folder` from the first to the last, and the path of the one to come."""
    chain: list[dict[str, Any]] = []
    path = folder / "claims" / "0001-first.json"
    while True:
        try:
            claim = json.loads(path.read_bytes())
            claim = {**claim, "path": str(path), "token": claim["token"]}
        except FileNotFoundError:
            return chain, path
        except (ValueError, KeyError, TypeError):
            # Cut short by a power failure, or, where files cannot be linked, being written at this moment.
            fresh = time.time() - (last_sign_of_life(path) or 0.0) < LOST_AFTER
            claim = {"path": str(path), "token": "damaged", **({} if fresh else {"released": utc(0.0)})}
        chain.append(claim)
        path = _after(path, claim["token"])


def _after(path: Path, token: str) -> Path:
    number = int(path.name.partition("-")[0]) + 1
    return path.with_name(f"{number:04d}-after-{token}.json")


def _silence(folder: Path, chain: list[dict[str, Any]]) -> float:
    seen = last_sign_of_life(folder / HEARTBEAT, Path(chain[-1]["path"]))
    return time.time() - (seen or 0.0)


def _create(path: Path, content: dict[str, Any]) -> bool:
    """Whether `path` was created by this call, whole and under no other process's hands."""
    temporary = path.with_name(f".{content['token']}")
    try:
        write_json(temporary, content)
        try:
            os.link(temporary, path)
        except FileExistsError:
            # A network disk may report the echo of our own success.
            return temporary.stat().st_nlink == 2
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            with path.open("x") as file:  # a disk without links
                json.dump(content, file)
        return True
    except (FileExistsError, FileNotFoundError):  # another was first, or the folder was moved: look again
        return False
    finally:
        temporary.unlink(missing_ok=True)
