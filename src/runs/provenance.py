"""What produced a number: the code, the libraries and the machine.

Never an error: a run outside a git checkout or without a GPU is still a run, and says so. Never a secret:
no environment variable, no address of a remote, of the host name only a hash.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from src.runs.process import this_process

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("torch", "torchvision", "lightning", "timm", "hydra-core", "wandb", "numpy")
SNAPSHOT = "made_by.json"  # beside a copy of the code: the state of the checkout it was taken from
_DIFF_LIMIT = 1_000_000  # characters; beyond it somebody tracks data, not code
# Reports that are made while a study runs: large, and no run depends on them.
_RESULTS = (":(exclude)experiments", ":(exclude)notebooks")


def provenance(root: Path = _ROOT) -> dict[str, Any]:
    """`git` (commit, dirty, untracked), `diff` (text), `versions` and `hardware`; None for what is unknown.

    Args:
        root: the checkout; its untracked files are listed by name, below src/ and conf/ only. What lies in
            experiments/ and notebooks/ doesn't make it dirty.
    """
    return {**code_state(root), "versions": _versions(), "hardware": hardware()}


def code_state(root: Path) -> dict[str, Any]:
    """`git` and `diff` of the checkout at `root`, or of the one that `root` is a copy of."""
    if (root / SNAPSHOT).is_file():
        state: dict[str, Any] = json.loads((root / SNAPSHOT).read_text())
        return state
    git, diff = _git_state(root)
    return {"git": git, "diff": diff}


def _git_state(root: Path) -> tuple[dict[str, Any], str]:
    unknown: dict[str, Any] = {"commit": None, "dirty": None, "untracked": []}
    top = _run("git", "rev-parse", "--show-toplevel", at=root)
    # Installed below somebody else's checkout, that one's commit would be a wrong answer.
    if top is None or Path(top.strip()).resolve() != root.resolve():
        return unknown, ""
    listed = _run("git", "ls-files", "--others", "--exclude-standard", "--", "src", "conf", at=root) or ""
    untracked = sorted(listed.splitlines())
    commit = _run("git", "rev-parse", "--verify", "--quiet", "HEAD", at=root)
    if commit is None:  # nothing committed yet
        return {**unknown, "untracked": untracked}, ""
    diff = _run("git", "diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv", "--", ".", *_RESULTS, at=root)
    git = {
        "commit": commit.strip(),
        "dirty": None if diff is None else bool(diff.strip() or untracked),
        "untracked": untracked,
    }
    diff = diff or ""
    if len(diff) > _DIFF_LIMIT:
        diff = diff[:_DIFF_LIMIT] + f"\n[cut: {len(diff)} characters in all]\n"
    return git, diff


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def hardware() -> dict[str, Any]:
    """The machine: its processor, cores, memory and GPUs; of its name only a hash."""
    threads, visible, cuda = None, None, None
    try:
        import torch

        threads, cuda = torch.get_num_threads(), torch.version.cuda
        visible = torch.cuda.device_count()  # doesn't start CUDA, which would forbid forking later
    except Exception:
        pass  # a broken installation is found by whoever needs it
    return {
        "host": this_process()["host"],
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": threads,
        "memory_gib": _memory_gib(),
        "gpus": _gpus(),
        "gpus_visible": visible,
        "cuda": cuda,
    }


def _gpus() -> list[dict[str, Any]]:
    query = "--query-gpu=name,driver_version,memory.total"
    table = _run("nvidia-smi", query, "--format=csv,noheader,nounits")
    gpus = []
    for row in (table or "").splitlines():
        cells = [cell.strip() for cell in row.split(",")]
        if len(cells) == 3:
            name, driver, mib = cells
            memory_gib = round(float(mib) / 1024, 1) if mib.isdigit() else None
            gpus.append({"name": name, "driver": driver, "memory_gib": memory_gib})
    return gpus


def _cpu_model() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, UnicodeDecodeError):
        pass
    return platform.processor() or None


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _run(*command: str, at: Path | None = None) -> str | None:
    """What the command printed, or None if it isn't there, fails or hangs."""
    # Jobs of a study start together: none may wait for, or leave behind, a lock on the index.
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, cwd=at, env=env, capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")
