"""`python -m src.benchmark startup`: what a command costs before it works, and a run beside its steps.

    commands   processor time of commands that say something and end
    imports    of each library that training loads, in the order in which it does
    run        where the time of a whole run goes, from the start of its process
    step       a training step of micro on digits, beside a bare PyTorch loop over the same batches

Processor time, not the clock's: how long a core waits for its disk or for other programs isn't ours to mend.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from src.benchmarks.bars import PICTURE, bars
from src.benchmarks.measure import Progress, Spread, Table, compete, markdown, number, ratio, recorded_on, set_up, text
from src.benchmarks.options import Options
from src.reports.figures.save import save
from src.runs.record import write_atomically

PARTS = ("commands", "imports", "run", "step")
COMMANDS = {
    "src.table --help": ("-m", "src.table", "--help"),
    "src.study --help": ("-m", "src.study", "--help"),
    "src.report --help": ("-m", "src.report", "--help"),
    "src.sync --help": ("-m", "src.sync", "--help"),
    "src.train --help": ("-m", "src.train", "--help"),
    "import src.training": ("-c", "import src.training"),
}
# As `import lightning` and our own modules load them; each one's time is without that of those before it.
LIBRARIES = (
    *("torch", "torch._dynamo", "torchvision", "scipy.signal", "matplotlib.pyplot", "torchmetrics", "lightning"),
    *("wandb", "timm", "hydra", "src.training"),
)


def run(options: Options) -> None:
    """Measures the parts that are asked for, and writes table, page and figure into `options.output`."""
    parts = options.chosen(PARTS)
    table, progress = Table(options.output / "results.csv", options), Progress([1.0] * len(parts))
    with set_up(options):
        for part in parts:
            progress.begin(part)
            MEASURES[part](table, options)
    write_atomically(options.output / "README.md", page(table.rows))
    shown = {head: pairs for head, pairs in panels(table.rows).items() if pairs}
    if shown:
        save(bars(shown, unit="seconds of processor time", text=recorded_on(table.rows)), options.output, "seconds")
    print((options.output / "README.md").read_text())


# ------------------------------------------------------------------------------------- measuring


def _commands(table: Table, options: Options) -> None:
    for name, arguments in COMMANDS.items():
        _seconds(table, "commands", {name: [_child(*arguments)[0] for _ in range(_rounds(options))]})


def _imports(table: Table, options: Options) -> None:
    code = (
        "import importlib, json, sys, time\nfound = {}\n"
        "for name in sys.argv[1:]:\n    began = time.process_time()\n    importlib.import_module(name)\n"
        "    found[name] = time.process_time() - began\nprint(json.dumps(found))"
    )
    _seconds(table, "imports", _many(lambda: json.loads(_child("-c", code, *LIBRARIES)[1]), _rounds(options)))


def _run(table: Table, options: Options) -> None:
    size = ["recipe.epochs=1", "recipe.warmup_epochs=0"] if options.quick else ["recipe.epochs=2"]
    if options.quick:
        size += ["data.scenes_per_epoch=512", "data.test_scenes=500"]

    def once() -> Mapping[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            said = _child("-m", "src.benchmarks.phases", *size, *_quietly(folder))[1]
        found: Mapping[str, float] = json.loads(said.splitlines()[-1])
        return found

    _seconds(table, "run", _many(once, 1 if options.quick else _rounds(options)), settings=" ".join(size))


def _step(table: Table, options: Options) -> None:
    steps = 12 if options.quick else 60
    with tempfile.TemporaryDirectory() as folder:
        versions = {
            "a bare loop": lambda: bare_steps(steps, folder),
            "a run, with its records": lambda: run_steps(steps, folder),
        }
        found = compete(versions, baseline="a bare loop", rounds=_rounds(options), warm_up=0 if options.quick else 1)
    base = found["a bare loop"].seconds
    for name, timing in found.items():
        more = Spread.of(100 * (own / bare - 1) for own, bare in zip(timing.seconds, base, strict=True))
        per_step = {key: value / steps if key.startswith("ms") else value for key, value in timing.row().items()}
        table.add(part="step", of=name, more_percent=more.median, **_quartiles("more_percent", more), **per_step)


def bare_steps(steps: int, folder: str, *overrides: str) -> float:
    """Seconds of the processor for `steps` steps of what `src.training` computes, and nothing else."""
    from src.config import build, build_model
    from src.optim import decay_groups, warmup_cosine
    from src.recipe import Recipe

    cfg = _config(steps, folder, overrides)
    recipe = Recipe(**cfg["recipe"])
    net, data = build_model(cfg).train(), build(cfg["data"])
    data.setup("fit")
    groups = decay_groups(net, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=recipe.peak_lr(1), betas=recipe.betas, fused=True)
    schedule = warmup_cosine(
        optimizer,
        steps=steps + WARM_UP,
        warmup_steps=round((steps + WARM_UP) * recipe.warmup_epochs / recipe.epochs),
        start=recipe.warmup_lr / recipe.base_lr,
        end=recipe.min_lr / recipe.base_lr,
    )
    marks: list[float] = []
    for images, labels in data.train_dataloader():
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.clip_norm)
        optimizer.step()
        schedule.step()
        marks.append(time.process_time())
    return marks[-1] - marks[WARM_UP - 1]


def run_steps(steps: int, folder: str, *overrides: str) -> float:
    """The same of a whole run: Lightning, callbacks, metrics, logs and records included."""
    from src import training

    marks: list[float] = []

    class Watched(training.ImageClassifier):
        def on_train_batch_end(self, *given: Any) -> None:  # comes after those of all callbacks
            marks.append(time.process_time())

    before = training.ImageClassifier
    training.ImageClassifier = Watched  # type: ignore[misc]
    try:
        training.train(_config(steps, folder, overrides))
    finally:
        training.ImageClassifier = before  # type: ignore[misc]
    return marks[-1] - marks[WARM_UP - 1]


WARM_UP = 3  # steps before the first one that counts


def _config(steps: int, folder: str, overrides: Sequence[str]) -> dict[str, Any]:
    from src.config import load_config

    batch: int = load_config(*overrides)["recipe"]["batch_size"]
    size = (f"data.scenes_per_epoch={batch * (steps + WARM_UP)}", "data.val_scenes=32", "data.test_scenes=32")
    return load_config(
        *size, "recipe.epochs=1", "recipe.warmup_epochs=0.1", "rerun=true", *_quietly(folder), *overrides
    )


def _quietly(folder: str) -> list[str]:
    return ["trainer.accelerator=cpu", "progress=lines", "logger.mode=offline", f"runs={folder}"]


def _child(*arguments: str) -> tuple[float, str]:
    """Processor seconds of `python ARGUMENTS`, what it started included, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise ValueError(f"python {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def _many(once: Callable[[], Mapping[str, float]], rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, seconds in once().items():
            found.setdefault(name, []).append(seconds)
    return found


def _seconds(table: Table, part: str, found: Mapping[str, Sequence[float]], **more: Any) -> None:
    whole = sum(statistics.median(values) for values in found.values())
    for name, values in found.items():
        spread = Spread.of(values)
        share = {"share": spread.median / whole} if len(found) > 1 else {}
        quartiles = _quartiles("seconds", spread)
        table.add(part=part, of=name, seconds=spread.median, **quartiles, **share, rounds=len(values), **more)


def _quartiles(name: str, spread: Spread) -> dict[str, float]:
    return {f"{name}_low": spread.low, f"{name}_high": spread.high}


def _rounds(options: Options) -> int:
    return options.rounds or (2 if options.quick else 5)


MEASURES: Mapping[str, Callable[[Table, Options], None]] = {
    "commands": _commands,
    "imports": _imports,
    "run": _run,
    "step": _step,
}

# ------------------------------------------------------------------------------------- what is said


def panels(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    """Rows of seconds by part; of a run the phases without its steps, which would dwarf them."""
    heads = {"commands": "Commands", "imports": "Imports of training", "run": "A run, beside its steps"}
    return {
        head: [(row["of"], row) for row in rows if row["part"] == part and row["of"] != "other steps"]
        for part, head in heads.items()
    }


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """README.md from the rows."""
    spread = {"seconds": number("seconds", 2), "quartiles": _between("seconds", 2)}
    share = {"share": lambda row: f"{100 * row['share']:.0f} %"}
    columns: Mapping[str, Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
        "commands": {"command": text("of"), **spread},
        "imports": {"library": text("of"), **spread, **share},
        "run": {"phase": text("of"), **spread, **share},
        "step": {
            "version": text("of"),
            "times as fast (quartiles)": ratio,
            "more time, % (quartiles)": lambda row: f"{row['more_percent']:.1f} ({_between('more_percent', 1)(row)})",
            "ms a step": number("ms", 1),
        },
    }
    heads = {
        "commands": "Commands that say something and end.",
        "imports": "What `src.training` imports, each library without those above it.",
        "run": f"A whole run with {next((row['settings'] for row in rows if row.get('settings')), '')}, by phase.",
        "step": "A training step of micro on digits.",
    }
    out = [
        "# Start-up and overhead",
        "",
        "`python -m src.benchmark startup` writes this page. Seconds are those of the",
    ]
    out += ["processor, medians over rounds."]
    for part in PARTS:
        if own := [row for row in rows if row["part"] == part]:
            out += ["", heads[part], "", markdown(own, columns[part])]
    return "\n".join([*out, "", PICTURE, "", recorded_on(rows), ""])


def _between(name: str, digits: int) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: f"{row[f'{name}_low']:.{digits}f} to {row[f'{name}_high']:.{digits}f}"
