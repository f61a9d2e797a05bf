"""`python -m src.benchmark study`: how many runs a machine makes, and what the runner itself costs.

workers        the study of Table 6 on digits with a short schedule, from the command to its end: one worker, and
               one for each core; with --device cuda one run at a time on a GPU, and several packed onto it
bookkeeping    of a study that is running, for each job that ends, with few and with many jobs done
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from src.benchmarks.bars import PICTURE, bars
from src.benchmarks.measure import Progress, Spread, Table, compete, markdown, number, ratio, recorded_on, set_up, text
from src.benchmarks.options import Options
from src.reports.figures.save import save
from src.runs.record import sealed, write_atomically
from src.runs.session import claim
from src.studies.definition import read_study
from src.studies.engines.base import Engine, Report
from src.studies.engines.local import usable_cores
from src.studies.freeze import freeze
from src.studies.runner import run_jobs
from src.studies.table import Job
from src.studies.table import Table as Jobs

PARTS = ("bookkeeping", "workers")
JOBS = (100, 1000)
PACKED = (4, 8, 16)  # runs on one GPU at the same time; a core each is all that they then have
REPORTED = 20  # jobs of which the end is told while the bookkeeping is timed


def run(options: Options) -> None:
    """Measures the parts that are asked for, and writes table, page and figure into `options.output`."""
    parts = options.chosen(PARTS)
    table, progress = (
        Table(options.output / "results.csv", options),
        Progress([1.0 if p == "bookkeeping" else 20.0 for p in parts]),
    )
    with set_up(options):
        for part in parts:
            progress.begin(part)
            MEASURES[part](table, options)
    write_atomically(options.output / "README.md", page(table.rows))
    shown = {HEADS[part]: [(row["of"], row) for row in table.rows if row["part"] == part] for part in parts}
    save(bars(shown, unit="seconds", text=recorded_on(table.rows)), options.output, "seconds")
    print((options.output / "README.md").read_text())


# ------------------------------------------------------------------------------------- workers


def _workers(table: Table, options: Options) -> None:
    size = ["recipe.epochs=1", "recipe.warmup_epochs=0", "logger=csv"]
    if options.quick:
        size += ["data.scenes_per_epoch=512", "data.val_scenes=100", "data.test_scenes=200"]
    if options.device == "cuda":  # as many jobs as the most that are packed, or some slots stay empty
        counts = (1, *PACKED)
        size += ["seeds=3", "trainer.accelerator=gpu", "engine.gpus=[0]", "engine.threads=1"]
        given = {count: [f"engine.workers={count}", f"engine.jobs_per_gpu={count}"] for count in counts}
    else:
        size += ["seeds=1", "trainer.accelerator=cpu"]  # cores are shared out among workers, as by default
        given = {count: [f"engine.workers={count}"] for count in dict.fromkeys((1, usable_cores()))}
    versions = {f"{count} worker{'s' * (count > 1)}": _study([*size, *own]) for count, own in given.items()}
    found = compete(versions, baseline="1 worker", rounds=options.rounds or 2, warm_up=0)
    load = os.getloadavg()[2]
    for name, timing in found.items():
        share = Spread.of(1 / times for times in timing.times_as_fast)
        seconds = {f"seconds{end}": timing.row()[f"ms{end}"] / 1000 for end in ("", "_low", "_high")}
        table.add(
            part="workers", of=name, share=share.median, **timing.row(), **seconds, load=load, settings=" ".join(size)
        )


def _study(overrides: Sequence[str]) -> Callable[[], float]:
    """The whole study by one command, in an empty folder of runs; seconds by the clock."""

    def version() -> float:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "src.study", "run", "table6_geometry", *overrides, f"runs={folder}"]
            began = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            if done.returncode:
                raise ValueError(f"the study ended with {done.returncode}: {done.stdout[-300:]}{done.stderr[-300:]}")
            return time.perf_counter() - began

    return version


# ------------------------------------------------------------------------------------- bookkeeping


class Telling(Engine):
    """Runs nothing, says of some jobs that they have ended, and times how long that takes to be taken in."""

    def __init__(self) -> None:
        super().__init__(workers=1, retries=0, silence=1, time_limit=None)
        self.seconds: list[float] = []

    def side_by_side(self, table: Jobs, jobs: int) -> int:
        return 1

    def devices(self, table: Jobs) -> int:
        return 1

    def threads_of_a_job(self, table: Jobs) -> int | None:
        return 1

    def run(self, table: Jobs, jobs: Sequence[Job], report: Report, stop: threading.Event) -> None:
        report(jobs[0], "finished")  # the first look reads all that is there
        for job in jobs[:REPORTED]:
            began = time.process_time()
            report(job, "finished")
            self.seconds.append(time.process_time() - began)


def _bookkeeping(table: Table, options: Options) -> None:
    for count in JOBS:
        with tempfile.TemporaryDirectory() as folder:
            jobs, engine = finished_study(Path(folder), count), Telling()
            with contextlib.redirect_stdout(io.StringIO()):  # a line for each of them
                run_jobs(jobs, jobs.jobs, engine)
        spread = Spread.of(engine.seconds)
        of = f"a job's end, {count} jobs done"
        table.add(
            part="bookkeeping",
            of=of,
            jobs=count,
            seconds=spread.median,
            seconds_low=spread.low,
            seconds_high=spread.high,
        )


def finished_study(folder: Path, count: int) -> Jobs:
    """A study of `count` jobs, of which all are finished: one record, made true for each of them."""
    rows = {f"row{n}": {"overrides": [f"recipe.weight_decay={n + 1}e-3"]} for n in range(4)}
    study = {"question": "How long does a look take?", "seeds": count // len(rows), "rows": rows}
    (folder / "many").mkdir()
    (folder / "many" / "study.yaml").write_text(yaml.safe_dump(study))
    table = freeze(read_study(str(folder / "many")), [f"runs={folder / 'runs'}"])
    metrics = {"test/acc1": 0.5, "val/acc1": 0.5, "peak_memory_mb": 500.0}
    with claim(table.config(table.jobs[0]), root=table.runs) as own:
        own.finish(metrics)
    record = json.loads((own.folder / "record.json").read_text())
    for job in table.jobs[1:]:
        table.folder(job).mkdir(parents=True)
        mine = {**record, "name": job.name, "seed": job.seed, "identity": job.identity}
        (table.folder(job) / "record.json").write_text(json.dumps(sealed(mine)))
    return table


MEASURES: Mapping[str, Callable[[Table, Options], None]] = {"bookkeeping": _bookkeeping, "workers": _workers}
HEADS = {
    "bookkeeping": "What the runner does when a job ends, seconds of the processor",
    "workers": "Table 6 on digits, seconds by the clock",
}


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """README.md from the rows."""
    columns: Mapping[str, Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
        "bookkeeping": {"of": text("of"), "ms": number("seconds", 1, 1e-3)},
        "workers": {
            "workers": text("of"),
            "times as fast (quartiles)": ratio,
            "share of one worker's time": lambda row: f"{row['share']:.2f}",
            "s": number("seconds", 0),
            "load of the machine": number("load", 1),
        },
    }
    out = ["# Studies", "", "`python -m src.benchmark study` writes this page."]
    for part in PARTS:
        if own := [row for row in rows if row["part"] == part]:
            settings = f" (`{own[0]['settings']}`)" if own[0].get("settings") else ""
            out += ["", f"{HEADS[part]}{settings}.", "", markdown(own, columns[part])]
    return "\n".join([*out, "", PICTURE, "", recorded_on(rows), ""])
