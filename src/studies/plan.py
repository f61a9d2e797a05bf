"""What a study will cost and can show, before anything is spent."""

import hashlib
import heapq
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from src.runs.durations import duration
from src.runs.identity import identity
from src.runs.provenance import hardware
from src.runs.record import read_progress, write_json
from src.studies.definition import StudyError
from src.studies.engines.base import Engine
from src.studies.power import sentence
from src.studies.states import TO_DO, State, states
from src.studies.table import Table
from src.studies.view import console

PROBES = ".probes"
TIMEOUT = 900.0  # seconds for a probe
UNSEEN = 0.15  # of the estimate: what some steps can't tell of a whole run, such as other work on the machine
BESIDES_CHECKPOINTS_MB = 3.0  # record, curves, log, predictions, W&B's file
CHECKPOINTS = 3  # best, last, and the one before
LISTED = 60  # jobs; of larger studies the counts


def estimate(table: Table, engine: Engine, *, probe: bool) -> dict[str, Any]:
    """Every job, and what those that are to do take: seconds, memory, disk, with how sure that is.

    A variant with finished runs on this machine is estimated from them, any other from a short probe; probes are kept
    below `runs`, so that asking again costs nothing.

    Raises:
        StudyError: a probe failed; its last line is the message.
    """
    found = states(table)
    left = [state for state in found if state.status in TO_DO]
    workers = engine.side_by_side(table, len(left))
    names = list(dict.fromkeys(state.job.name for state in left))
    costs = {name: cost for name in names if (cost := _from_runs(name, found, engine.threads_of_a_job(table)))}
    if probe and (unknown := [name for name in names if name not in costs]):
        costs |= _probed(table, unknown, engine, workers)
    whole = [_whole(state, costs) for state in left]
    known = [seconds for seconds in whole if seconds is not None]
    complete = len(known) == len(whole)
    total, walls = sum(known), _wall([s for s in whole if s is not None], workers)
    unsure = _unsure(left, costs)
    disk = sum(costs[state.job.name]["disk_mb"] for state in left if state.job.name in costs)
    pairs, spread = _spread(table, found)
    return {
        "study": table.study,
        "question": table.question,
        "asked": list(table.asked),
        "table": table.key,
        "jobs": [{**asdict(state.job), "status": state.status, "at": str(state.folder)} for state in found],
        "to_do": len(left),
        "workers": workers,
        "costs": costs,
        "wall_seconds": walls if complete else None,
        "wall_seconds_low": walls * (1 - unsure) if complete else None,
        "wall_seconds_high": walls * (1 + unsure) if complete else None,
        "device_hours": total * engine.devices(table) / 3600 if complete else None,
        "memory_mb": max((cost["memory_mb"] for cost in costs.values()), default=None),
        "memory_of_a_job_mb": engine.memory_of_a_job(table, workers),
        "disk_mb": disk if complete else None,
        "disk_free_mb": shutil.disk_usage(_existing(table.runs)).free / 1e6,
        "seeds": sentence(len({job.seed for job in table.jobs}), max(1, len(table.variants) - 1), spread, pairs=pairs),
    }


def refuse_what_does_not_fit(plan: Mapping[str, Any], budget: float | None) -> None:
    """Raises StudyError if the disk, the memory or the `budget`, in seconds, isn't enough."""
    there = plan["memory_of_a_job_mb"]
    if plan["memory_mb"] and there and plan["memory_mb"] > there:
        raise StudyError(
            f"study {plan['study']} needs {plan['memory_mb'] / 1e3:.1f} GB of memory a job, there are "
            f"{there / 1e3:.1f} GB for each; take fewer engine.workers, engine.jobs_per_gpu or a smaller "
            f"recipe.batch_size"
        )
    if plan["disk_mb"] is not None and plan["disk_mb"] > plan["disk_free_mb"]:
        raise StudyError(
            f"study {plan['study']} needs {plan['disk_mb'] / 1e3:.1f} GB of disk, {plan['disk_free_mb'] / 1e3:.1f} GB "
            f"are free; make room, or put runs=FOLDER elsewhere"
        )
    if budget is None:
        return
    if plan["wall_seconds"] is None:
        raise StudyError("the plan's time isn't known, so no budget can be kept; leave out --no-probe")
    if plan["wall_seconds"] > budget:
        seeds = len({job["seed"] for job in plan["jobs"]})
        fit = int(seeds * budget / plan["wall_seconds"])
        fewer = f"seeds={fit} would fit" if fit else "not even one seed fits"
        raise StudyError(
            f"study {plan['study']} takes {duration(plan['wall_seconds'])} with {plan['workers']} worker(s), the "
            f"budget is {duration(budget)}; {fewer}, or take fewer rows, recipe.epochs or more engine.workers"
        )


def said(plan: Mapping[str, Any]) -> str:
    """The plan as text."""
    out = [f"{plan['study']}: {plan['question']}", f"table {plan['table']}  {' '.join(plan['asked'])}".rstrip(), ""]
    jobs = plan["jobs"]
    if len(jobs) <= LISTED:
        width = max(len(job["name"]) for job in jobs)
        for job in jobs:
            where = f"  in {job['at']}" if job["status"] != "waiting" else ""
            status = "to do" if job["status"] == "waiting" else job["status"]
            out.append(f"  {job['name']:{width}}  seed {job['seed']:<3} {job['identity']}  {status}{where}")
    else:
        out.append(f"  {len(jobs)} jobs, {len(jobs) - plan['to_do']} of them done or running; --json lists each")
    if plan["costs"]:
        out += ["", *_cost_lines(plan["costs"])]
    out += ["", *_total_lines(plan), "", plan["seeds"]]
    return "\n".join(out)


def _cost_lines(costs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    width = max(len(name) for name in costs)
    lines = [f"  {'variant':{width}}  {'a run takes':>15}  {'likely':>21}  {'memory':>8}  {'disk':>7}  from"]
    for name, cost in costs.items():
        low, high = (duration(cost["seconds"] * (1 + sign * cost["unsure"])) for sign in (-1, 1))
        lines.append(
            f"  {name:{width}}  {duration(cost['seconds']):>15}  {low + ' to ' + high:>21}  "
            f"{cost['memory_mb'] / 1e3:5.2f} GB  {cost['disk_mb']:4.0f} MB  {cost['from']}"
        )
    return lines


def _total_lines(plan: Mapping[str, Any]) -> list[str]:
    if not plan["to_do"]:
        return ["nothing to do"]
    if plan["wall_seconds"] is None:
        return [f"{plan['to_do']} jobs to do; their time isn't known without probes"]
    low, high = duration(plan["wall_seconds_low"]), duration(plan["wall_seconds_high"])
    workers, memory = plan["workers"], plan["memory_mb"] / 1e3
    return [
        f"{plan['to_do']} jobs to do, {workers} at a time: {duration(plan['wall_seconds'])} "
        f"(likely {low} to {high}), {plan['device_hours']:.2f} device hours",
        f"memory: up to {memory:.2f} GB a job, so {workers * memory:.2f} GB at a time; "
        f"disk: {plan['disk_mb'] / 1e3:.2f} GB of {plan['disk_free_mb'] / 1e3:.1f} GB free",
    ]


# ------------------------------------------------------------------------------------------- sources


def _from_runs(name: str, found: Sequence[State], threads: int | None) -> dict[str, Any] | None:
    """From the finished runs of a variant on hardware like this, with as many threads."""
    here = hardware()
    alike = [
        state
        for state in found
        if state.job.name == name
        and state.status == "finished"
        and state.record
        and len(state.record["attempts"]) == 1  # the time of a broken run counts what was computed twice
        and all(state.record["hardware"][key] == here[key] for key in ("cpu", "gpus"))
        and threads in (None, state.record["hardware"]["threads"])
    ]
    if not alike:
        return None
    took = [state.seconds or 0.0 for state in alike]
    scatter = 2 * stdev(took) / mean(took) if len(took) > 1 else UNSEEN
    checkpoints = [file for state in alike[:1] for file in (state.folder / "checkpoints").glob("*.ckpt")]
    return {
        "seconds": mean(took),
        "unsure": max(scatter, 0.03),
        "memory_mb": max(state.metrics["peak_memory_mb"] for state in alike),
        "disk_mb": sum(file.stat().st_size for file in checkpoints) / 1e6 + BESIDES_CHECKPOINTS_MB,
        "from": f"{len(took)} finished run{'s' * (len(took) > 1)}",
    }


def _probed(table: Table, names: Sequence[str], engine: Engine, workers: int) -> dict[str, dict[str, Any]]:
    """Probes as many variants side by side as jobs will run, so that they get in each other's way as much."""
    slots = engine.probe_slots(table, workers)
    free, costs = list(slots), {}
    bar = Progress(
        TextColumn("probing {task.fields[now]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console(stderr=True),
        transient=True,
    )
    with tempfile.TemporaryDirectory() as folder, bar, ThreadPoolExecutor(len(slots)) as pool:
        path = table.write(Path(folder))
        shown = bar.add_task("", total=len(names), now=names[0])

        def one(name: str) -> None:
            slot = free.pop()
            bar.update(shown, now=name)
            costs[name] = _cost(_probe(table, path, name, slot, len(slots)))
            free.append(slot)
            bar.advance(shown)

        list(pool.map(one, names))
    return {name: costs[name] for name in names}


def _probe(table: Table, path: Path, name: str, slot: Mapping[str, str], side_by_side: int) -> dict[str, Any]:
    """What `src.studies.probe` finds, from `runs/.probes/` if it was done under the same conditions."""
    config = {**table.variants[name].config, "seed": 0}
    machine = {key: hardware()[key] for key in ("cpu", "cores_usable", "gpus")}
    conditions = json.dumps([identity(config), machine, sorted(slot.items()), side_by_side], sort_keys=True)
    kept = table.runs / PROBES / f"{hashlib.sha256(conditions.encode()).hexdigest()[:16]}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    command = [sys.executable, "-m", "src.studies.probe", str(path), name]
    began = time.monotonic()
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **slot},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise StudyError(f"row {name}: {TIMEOUT:.0f} s weren't enough for some steps; try --no-probe") from None
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise StudyError(f"row {name} can't be probed: {why}")
    found = json.loads(done.stdout.splitlines()[-1])
    found["startup"] = time.monotonic() - began - found["took"]
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, found)
    return found


def _cost(found: Mapping[str, Any]) -> dict[str, Any]:
    """A whole run, from the seconds of its pieces."""
    training, evaluation = found["steps"] * mean(found["step"]), found["evaluations"] * mean(found["evaluation"])
    total = found["startup"] + training + evaluation + found["saves"] * found["save"]
    error = 0.0
    for times, share in ((found["step"], training / total), (found["evaluation"], evaluation / total)):
        if len(times) > 1:
            error += (share * 2 * stdev(times) / mean(times) / math.sqrt(len(times))) ** 2
    return {
        "seconds": total,
        "unsure": math.sqrt(UNSEEN**2 + error),
        "memory_mb": found["memory_mb"],
        "disk_mb": CHECKPOINTS * found["checkpoint_mb"] + BESIDES_CHECKPOINTS_MB,
        "from": f"a probe of {len(found['step'])} steps",
    }


# -------------------------------------------------------------------------------------------- totals


def _whole(state: State, costs: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Seconds that a job still takes, the epochs that an interrupted one has behind it left out."""
    if state.job.name not in costs:
        return None
    seconds: float = costs[state.job.name]["seconds"]
    before = read_progress(state.folder) if state.record else None
    return seconds * (1 - (before["epoch"] - 1) / before["epochs"]) if before and before.get("epochs") else seconds


def _wall(seconds: Sequence[float], workers: int) -> float:
    """When the last of `workers` is done, each taking the next job as it gets free."""
    busy = [0.0] * workers
    for each in seconds:
        heapq.heappush(busy, heapq.heappop(busy) + each)
    return max(busy)


def _unsure(left: Sequence[State], costs: Mapping[str, Mapping[str, Any]]) -> float:
    """Of the total: errors of variants may have the same cause, so they are averaged and not cancelled out."""
    known = [costs[state.job.name] for state in left if state.job.name in costs]
    total = sum(cost["seconds"] for cost in known)
    return sum(cost["seconds"] * cost["unsure"] for cost in known) / total if total else 0.0


def _spread(table: Table, found: Sequence[State]) -> tuple[int, float | None]:
    """How many per-seed differences are known, and their standard deviation in percentage points.

    Each variant against the one that it is compared with; pooled over variants with two seeds or more.
    """
    accuracy = {(s.job.name, s.job.seed): 100 * s.metrics["test/acc1"] for s in found if "test/acc1" in s.metrics}
    squares, freedom, pairs = 0.0, 0, 0
    for name, variant in table.variants.items():
        against = variant.config["against"]
        seeds = [seed for of, seed in accuracy if of == name and (against, seed) in accuracy]
        differences = [accuracy[name, seed] - accuracy[against, seed] for seed in seeds]
        if against != name and len(differences) > 1:
            squares += (len(differences) - 1) * stdev(differences) ** 2
            freedom += len(differences) - 1
            pairs += len(differences)
    return pairs, math.sqrt(squares / freedom) if freedom else None


def _existing(path: Path) -> Path:
    path = path.resolve()
    return path if path.exists() else _existing(path.parent)
