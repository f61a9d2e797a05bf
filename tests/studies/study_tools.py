"""Small studies, run by the command line as their users have it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from smallest_run import SMALLEST

ROOT = Path(__file__).parents[2]

TINY = (
    *SMALLEST,
    "recipe.epochs=4",
    "recipe.warmup_epochs=1",
    "model.drop_path_rate=0.2",  # so that each step depends on the random numbers
    "logger=csv",
)


def faulty(root):
    """Overrides for data that can break."""
    return ("data._target_=study_faults.FaultyDigits", f"+data.root={root}")


def write_study(folder, rows, *, seeds=1, overrides=TINY, question="Does it survive?"):
    """`rows`: overrides by name; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    study = {
        "question": question,
        "seeds": seeds,
        "overrides": list(overrides),
        "rows": {name: None if own is None else {"overrides": list(own)} for name, own in rows.items()},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return folder


def environment():
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
    return {**kept, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}


def start(*arguments, cwd=ROOT, env=()):
    return subprocess.Popen(
        [sys.executable, "-m", "src.study", *map(str, arguments)],
        cwd=cwd,
        env={**environment(), **dict(env)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if "--json" not in arguments else None,
        text=True,
        start_new_session=True,
    )


def study(*arguments, timeout=400, **options):
    """(exit code, what it printed); a hang fails."""
    process = start(*arguments, **options)
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"still running after {timeout} s: {arguments}\n{process.communicate()[0]}")
    return process.returncode, out


def status(folder, runs, **options):
    code, out = study("status", folder, f"runs={runs}", "--json", **options)
    assert code == 0, out
    return json.loads(out)


def by_state(folder, runs, **options):
    return {f"{job['name']}/{job['seed']}": job["status"] for job in status(folder, runs, **options)["jobs"]}


def until(condition, what, timeout=240):
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {timeout} s: {what}")
        time.sleep(0.05)


def processes(runs):
    """Living jobs of studies below `runs`, by their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
            state = path.with_name("stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in "ZX" and "src.job" in words and any(str(runs) in word for word in words):
            found.append(int(path.parent.name))
    return found
