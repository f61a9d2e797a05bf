"""Is the process that wrote this still alive?

A run that was killed cannot say so. Its process can be looked up: by number, start time and machine, since
numbers are reused and folders shared. From another machine only the heartbeat tells.
"""

import functools
import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEARTBEAT_EVERY = 15.0  # seconds
LOST_AFTER = 120.0  # seconds of silence: eight missed heartbeats, above what a slow network disk delays


def rank() -> int:
    """This process's place among those that train one model together; read in Lightning's order."""
    for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        if key in os.environ:
            return int(os.environ[key])
    return 0


def this_process() -> dict[str, Any]:
    """Who is writing: `host` (a hash: enough to compare), `boot`, `namespace`, `pid`, `started`."""
    pid = os.getpid()
    return {**_machine(), "pid": pid, "started": _started(pid)}


def fate(owner: Mapping[str, Any], silence: float) -> str:
    """What became of `owner`, which never said that it ended: "running", "interrupted" or "lost".

    Args:
        owner: what `this_process` gave there.
        silence: seconds since its last sign of life.
    """
    here = _machine()
    if all(owner.get(key) == here[key] for key in here):
        alive = _is_alive(owner["pid"], owner.get("started"))
        if alive is not None:
            return "running" if alive else "interrupted"
    # Another machine, another container, or this one before it was restarted.
    if silence < LOST_AFTER:
        return "running"
    return "interrupted" if owner.get("host") == here["host"] else "lost"


def seconds_since_start() -> float | None:
    """How long this process has lived, imports included; None where the system doesn't say."""
    started, uptime = _started(os.getpid()), _read("/proc/uptime")
    if started is None or uptime is None:
        return None
    return float(uptime.split()[0]) - int(started) / os.sysconf("SC_CLK_TCK")


@functools.cache
def _machine() -> dict[str, str | None]:
    host = f"{platform.node()} {_read('/etc/machine-id')}"
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # containers count their processes separately
    except OSError:
        namespace = None
    return {
        "host": hashlib.sha256(host.encode()).hexdigest()[:8],
        "boot": _read("/proc/sys/kernel/random/boot_id"),
        "namespace": namespace,
    }


def _is_alive(pid: int, started: str | None) -> bool | None:
    """None where it cannot be known."""
    if Path("/proc/self/stat").exists():
        now = _started(pid)
        return now is not None and (started is None or now == started)
    if os.name != "posix":  # elsewhere signal 0 is a real signal
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # alive, and another user's
        pass
    now = _started(pid)
    return now == started if now and started else True


def _started(pid: int) -> str | None:
    """When a process started, in the system's own units; None if there is none or it only awaits burial."""
    stat = _read(f"/proc/{pid}/stat")
    if stat is not None:
        state, *fields = stat.rpartition(")")[2].split()  # the name in parentheses may hold anything
        return None if state in "ZX" else fields[18]
    if os.name != "posix" or Path("/proc/self/stat").exists():
        return None
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    try:
        ps = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ps.stdout.strip() or None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None
