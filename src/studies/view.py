"""A study on a terminal: jobs by state, how far the running ones are, and the variants' metrics so far."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid
from rich.text import Text

from src.runs.durations import duration

# Told apart by their words too, not by colour alone.
COLOURS = {
    "waiting": "dim",
    "running": "cyan",
    "interrupted": "yellow",
    "lost": "yellow",
    "damaged": "red",
    "failed": "red",
    "diverged": "magenta",
    "finished": "green",
}
REFRESH = 2.0  # seconds between two looks at all run folders
SHOWN = 12  # running or failed jobs in the live view; the rest is counted


def live(status: Mapping[str, Any]) -> RenderableType:
    """What a terminal shows of `summary`."""
    head = Text.assemble((f"{status['study']} ", "bold"), (status["question"], "italic"))
    parts: list[RenderableType] = [head, Text(), _variants(status["variants"])]
    running = [job for job in status["jobs"] if job["status"] == "running"]
    if running:
        parts += [Text(), _running(running)]
    parts += [Text(), *_problems(status["jobs"]), _foot(status)]
    return Group(*parts)


def lines(status: Mapping[str, Any]) -> list[str]:
    """The same as plain text."""
    found = [f"{status['study']}: {status['question']}", f"table {status['table']}  {' '.join(status['asked'])}", ""]
    width = max(len(row["name"]) for row in status["variants"])
    for row in status["variants"]:
        counts = ", ".join(f"{number} {name}" for name, number in row["counts"].items())
        found.append(f"  {row['name']:{width}}  {_accuracy(row):>16}  {counts}")
    running = [job for job in status["jobs"] if job["status"] == "running"]
    found += ["", *(f"  running  {_name(job)}  {_how_far(job)}" for job in running)] if running else []
    problems = [problem.plain for problem in _problems(status["jobs"])]
    return [*found, "", *problems, _foot(status).plain]


def follow(look: Callable[[], Mapping[str, Any]]) -> None:
    """Shows what `look` gives until no job runs any more, or Ctrl-C."""
    status = look()
    with Live(live(status), console=console(), auto_refresh=False) as view:
        with suppress(KeyboardInterrupt):
            while status["counts"].get("running"):
                time.sleep(REFRESH)
                status = look()
                view.update(live(status), refresh=True)
        view.refresh()


def _variants(rows: Sequence[Mapping[str, Any]]) -> Grid:
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    grid.add_column("variant", overflow="fold")
    grid.add_column("finished", justify="right")
    grid.add_column("running", justify="right")
    grid.add_column("to do", justify="right")
    grid.add_column("failed", justify="right")
    grid.add_column("test top-1, %", justify="right")
    grid.add_column("s per run", justify="right")
    for row in rows:
        counts = row["counts"]
        failed = counts.get("failed", 0) + counts.get("diverged", 0)
        done, running = counts.get("finished", 0), counts.get("running", 0)
        grid.add_row(
            row["name"],
            Text(f"{done}/{row['jobs']}", "green" if done == row["jobs"] else ""),
            Text(str(running or ""), "cyan"),
            str(row["jobs"] - done - running - failed or ""),
            Text(str(failed or ""), "red"),
            _accuracy(row),
            "" if row["seconds"] is None else f"{row['seconds']:.0f}",
        )
    return grid


def _running(jobs: Sequence[Mapping[str, Any]]) -> Grid:
    grid = Grid(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        grid.add_column(no_wrap=True)
    for job in jobs[:SHOWN]:
        progress = job["progress"] or {}
        steps = progress.get("steps") or 0
        bar = ProgressBar(total=steps or 1, completed=progress.get("step") or 0, width=12)
        grid.add_row(Text(_name(job), "cyan"), bar, _how_far(job))
    if len(jobs) > SHOWN:
        grid.add_row(f"and {len(jobs) - SHOWN} more", "", "")
    return grid


def _problems(jobs: Sequence[Mapping[str, Any]]) -> list[Text]:
    """Why jobs failed, each in a line."""
    troubled = [job for job in jobs if job["status"] in ("failed", "diverged", "damaged", "lost")]
    found = []
    for job in troubled[:SHOWN]:
        why = (job["error"] or "")[:160]
        found.append(Text.assemble((f"{job['status']:8} ", COLOURS[job["status"]]), f"{_name(job)}  {why}"))
    if len(troubled) > SHOWN:
        found.append(Text(f"and {len(troubled) - SHOWN} more: --json has them all"))
    return found


def _foot(status: Mapping[str, Any]) -> Text:
    counts = [(f"{number} {name}", COLOURS[name]) for name, number in status["counts"].items()]
    parts: list[Any] = []
    for piece in counts:
        parts += [piece, ", "]
    text = Text.assemble(*parts[:-1])
    if status["jobs_per_hour"]:
        text.append(f"; {status['jobs_per_hour']:.1f} runs an hour")
    if status["seconds_left"] is not None:
        text.append(f"; about {duration(status['seconds_left'])} left")
    return text


def _name(job: Mapping[str, Any]) -> str:
    return f"{job['name']}/seed{job['seed']}"


def _how_far(job: Mapping[str, Any]) -> str:
    progress = job["progress"]
    if not progress:
        return "starting"
    said = [f"epoch {progress['epoch']}/{progress['epochs']}" if progress["phase"] == "fit" else "testing"]
    if progress.get("images_per_second"):
        said.append(f"{progress['images_per_second']:.0f} images/s")
    if "val/acc1" in progress["metrics"]:
        said.append(f"val {100 * progress['metrics']['val/acc1']:.1f} %")
    if progress.get("seconds_left") is not None:
        said.insert(1, f"{duration(progress['seconds_left'])} left")
    return "  ".join(said)


def _accuracy(row: Mapping[str, Any]) -> str:
    if row["test/acc1"] is not None:
        spread = "" if row["test/acc1 sd"] is None else f" ± {100 * row['test/acc1 sd']:.1f}"
        return f"{100 * row['test/acc1']:.1f}{spread}"
    now = row["val/acc1 of running"]
    return f"val {100 * sum(now) / len(now):.1f}" if now else ""


def console(*, stderr: bool = False) -> Console:
    return Console(highlight=False, stderr=stderr)
