"""The code of a study, copied aside before its first job: an edit in mid-study changes none of its jobs.

    runs/.code/<version>/src, conf, made_by.json

<version> is a hash of all files, so that studies of one state of the code share a copy.
"""

import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path

from src.runs.provenance import SNAPSHOT, code_state
from src.runs.record import write_json

SNAPSHOTS = ".code"
ROOT = Path(__file__).resolve().parents[2]
_PARTS = {"src": ".py", "conf": ".yaml"}


def take_snapshot(runs: Path, root: Path = ROOT) -> str:
    """Copies `src` and `conf` below `runs`, unless they are there already; returns their version.

    Raises:
        OSError: the disk is full or read-only.
    """
    files = {
        path.relative_to(root): path.read_bytes()
        for part, suffix in _PARTS.items()
        for path in sorted((root / part).rglob(f"*{suffix}"))
    }
    sums = {str(name): hashlib.sha256(content).hexdigest() for name, content in files.items()}
    version = hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:10]
    there = folder_of(runs, version)
    if there.exists():
        return version
    fresh = there.with_name(f".{version}-{uuid.uuid4().hex[:8]}")
    try:
        for name, content in files.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).write_bytes(content)
        write_json(fresh / SNAPSHOT, code_state(root))
        fresh.rename(there)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        if not there.exists():  # else another study was first
            raise
    return version


def folder_of(runs: Path, version: str) -> Path:
    return runs / SNAPSHOTS / version


def environment(runs: Path, version: str) -> dict[str, str]:
    """This process's environment, in which `python -m src...` is the snapshot, wherever it is started.

    Modules of the user's own are found as before, after the snapshot.
    """
    code = str(folder_of(runs, version).resolve())
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    # Safe path: or Python would put the folder it is started in first, with the code as it is now. By a variable
    # and not an option, so that processes that a job starts have it too.
    return {**os.environ, "PYTHONPATH": os.pathsep.join([code, *given, str(Path.cwd())]), "PYTHONSAFEPATH": "1"}
