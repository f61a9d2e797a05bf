"""A training step of whole networks: forward and backward, beside the published code's transcription and timm's.

Parts: `networks` (time and memory kept for the gradient, float32 and bfloat16), `scaling` (over batches and image
sizes), `shares` (what the time goes to), `loader` (images per second and core).
"""

import gc
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from src.benchmarks.loader import images_per_second, kilobytes, photographs
from src.benchmarks.measure import MB, Progress, Spread, Table, compete, peak_bytes, read_table, set_up, timed
from src.benchmarks.networks import (
    FAMILIES,
    NUM_CLASSES,
    OURS,
    TRANSCRIPTION,
    Step,
    alike,
    contestants,
    ours,
    peer,
)
from src.benchmarks.options import Options
from src.benchmarks.products import Products
from src.benchmarks.shares import shares
from src.benchmarks.step_page import figures, said
from src.reports.figures.save import save
from src.runs.record import write_atomically

PARTS = ("networks", "scaling", "shares", "loader")
PRECISIONS = ("float32", "bfloat16")
PRODUCTS = "datlab's 1x1 convolutions alone"
PIXELS = 224
# Images of a batch. The transcription of DAT++ copies the keys of every query and neighbor, and takes seconds for each.
BATCHES = {"cpu": {"DAT-T": 8, "DAT-T++": 2}, "cuda": {"DAT-T": 128, "DAT-T++": 128}}
QUICK_BATCH = 1
ROUNDS, QUICK_ROUNDS = 5, 2
SCALING = {"cpu": ((1, 2, 4, 8), (224, 448)), "cuda": ((32, 64, 128, 256), (224, 448))}  # batches, sides in pixels
QUICK_SCALING = ((1, 2), (224,))
FILES, QUICK_FILES = 192, 32


def run(options: Options) -> None:
    """Measures the parts that are asked for; table, page and figures go to `options.output`.

    Raises:
        ValueError: an unknown part, no such device, or no transcription here.
    """
    parts = options.chosen(PARTS)
    with set_up(options):
        table = Table(options.output / "results.csv", options)
        cases = _cases(parts, options)
        progress = Progress([weight for _, weight, _ in cases])
        for name, _, measure in cases:
            progress.begin(name)
            measure(table)
            gc.collect()
    rows = read_table(table.path)
    page = said(rows)
    write_atomically(options.output / "README.md", page)
    for name, figure in figures(rows).items():
        save(figure, options.output, name)
    print(page)
    print(f"written to {options.output}", file=sys.stderr)


def _cases(parts: tuple[str, ...], options: Options) -> list[tuple[str, float, Any]]:
    """Name, weight and function of each."""
    found: list[tuple[str, float, Any]] = []
    for family in FAMILIES:
        if "networks" in parts:
            found.append((family, 10, partial(_networks, options, family)))
        for precision in PRECISIONS:
            what = f"{family}, {precision}"
            if "shares" in parts:
                found.append((f"{what}: where time goes", 1, partial(_shares, options, family, precision)))
    if "scaling" in parts:
        found.append(("over batches and image sizes", 6, partial(_scaling, options)))
    if "loader" in parts:
        found.append(("the loader", 1, partial(_loader, options)))
    return found


def _steps(
    nets: Mapping[str, torch.nn.Module], batch: int, pixels: int, precision: str, device: str
) -> dict[str, Step]:
    images = torch.randn(batch, 3, pixels, pixels, device=device)
    labels = torch.randint(NUM_CLASSES, (batch,), device=device)
    return {name: Step(net.train(), images, labels, precision) for name, net in nets.items()}


def _batch(options: Options, family: str) -> int:
    return QUICK_BATCH if options.quick else BATCHES[options.device][family]


def _networks(options: Options, family: str, table: Table) -> None:
    """Both precisions in one competition, so that bfloat16 can be compared with float32."""
    device, batch = options.device, _batch(options, family)
    builders = contestants(family, compiled=device == "cuda", quick=options.quick)
    nets = {name: build().to(device) for name, build in builders.items()}
    alike({name: net.eval() for name, net in nets.items()}, torch.randn(1, 3, PIXELS, PIXELS, device=device))
    steps = {p: _steps(nets, batch, PIXELS, p, device) for p in PRECISIONS}
    works: dict[tuple[str, str], Step | Products] = {
        (name, p): step for p, by_name in steps.items() for name, step in by_name.items()
    }
    works |= {(PRODUCTS, p): Products(by_name[OURS]) for p, by_name in steps.items()}
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    versions = {key: timed(work, device) for key, work in works.items()}
    found = compete(versions, baseline=(TRANSCRIPTION, PRECISIONS[0]), rounds=rounds)
    for precision in PRECISIONS:
        baseline = found[TRANSCRIPTION, precision]
        saved = {name: step.saved_bytes() for name, step in steps[precision].items()}
        for name in (*nets, PRODUCTS):
            timing, work = found[name, precision], works[name, precision]
            memory = (
                {
                    "saved_mb": saved[name] / MB,
                    "saved_ratio": saved[name] / saved[TRANSCRIPTION],
                    "peak_mb": _mb(peak_bytes(work, device)),
                }
                if isinstance(work, Step)
                else {}
            )
            table.add(
                part="networks",
                family=family,
                version=name,
                precision=precision,
                **timing.against(baseline).row(),
                times_as_fast_as_float32=Spread.of(timing.times_as_fast).median,
                **memory,
                batch=batch,
                pixels=PIXELS,
                images_per_second=batch / Spread.of(timing.seconds).median,
            )


def _mb(found: int | None) -> float | None:
    return None if found is None else found / MB


def _scaling(options: Options, table: Table) -> None:
    """Ours against timm's swin_tiny: time and memory of an image, over batches and over image sizes."""
    batches, sides = QUICK_SCALING if options.quick else SCALING[options.device]
    rounds = options.rounds or QUICK_ROUNDS
    sizes = [(batch, PIXELS) for batch in batches] + [(batches[0], side) for side in sides if side != PIXELS]
    for pixels in dict.fromkeys(side for _, side in sizes):
        nets = {name: ours(name, pixels=pixels) for name in FAMILIES} | {
            "timm swin_tiny": peer("swin_tiny", pixels=pixels)
        }
        nets = {name: net.to(options.device) for name, net in nets.items()}
        for batch in (batch for batch, side in sizes if side == pixels):
            steps = _steps(nets, batch, pixels, PRECISIONS[0], options.device)
            versions = {name: timed(step, options.device) for name, step in steps.items()}
            for name, timing in compete(versions, baseline="timm swin_tiny", rounds=rounds).items():
                table.add(
                    part="scaling",
                    version=name,
                    precision=PRECISIONS[0],
                    **timing.row(),
                    saved_mb=steps[name].saved_bytes() / MB,
                    peak_mb=_mb(peak_bytes(steps[name], options.device)),
                    batch=batch,
                    pixels=pixels,
                    images_per_second=batch / Spread.of(timing.seconds).median,
                )


def _shares(options: Options, family: str, precision: str, table: Table) -> None:
    builders = contestants(family, compiled=False)
    chosen = (TRANSCRIPTION, OURS, *(["timm swin_tiny"] if family == "DAT-T" else []))
    nets = {name: builders[name]().to(options.device) for name in chosen}
    for name, step in _steps(nets, _batch(options, family), PIXELS, precision, options.device).items():
        step()
        for kind, share in shares(step, options.device).items():
            table.add(part="shares", family=family, version=name, precision=precision, kind=kind, share=share)


def _loader(options: Options, table: Table) -> None:
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        files = photographs(Path(folder), QUICK_FILES if options.quick else FILES)
        speed = Spread.of(images_per_second(files, rounds=rounds))
        table.add(
            part="loader",
            version="one process",
            images_per_second=speed.median,
            images_per_second_low=speed.low,
            images_per_second_high=speed.high,
            rounds=rounds,
            kilobytes=kilobytes(files),
        )
