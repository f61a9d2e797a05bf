"""`python -m src.benchmark op`: deformable attention alone, from q, k, v, table and points to the output and back.

Three parts. `core`: maps of the published networks, and one of detection, by every implementation. `scaling`: time and
memory from 7x7 to 112x112, beside windows and attention of all pixels without a bias. `flex`: FlexAttention with the
bias as a score function, against the definition; forward alone where torch has no more.

The baseline of `core` is the published formula as the published code writes it, with the displacement of every query
from every key turned from (y, x) to (x, y) by a copy. `reference` is our definition, which turns the positions.
Nothing is changed about how the process gets its memory; MALLOC_ variables that are set are recorded.
"""

import gc
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from src.benchmarks import measure
from src.benchmarks.figures import curves, ratios
from src.benchmarks.measure import MB, Table, compete, markdown, number, ratio, saved_bytes, text, timed
from src.benchmarks.options import Options
from src.models import bilinear
from src.models.attention.attend import attend
from src.models.deformable_op import BiasTable, choose, deformable_attention
from src.models.reference_grid import Grid, PublishedGrid, ShiftedGrid
from src.reports.figures.save import save

PARTS = ("core", "scaling", "flex")
GRIDS: dict[str, Grid] = {"published": PublishedGrid(), "DAT++": ShiftedGrid()}
WINDOW = 7
LARGEST = 2e9  # bytes of one tensor of the size queries x keys; what is larger isn't tried


@dataclass(frozen=True)
class Shape:
    """An attention; every pixel is a query, and there are as many keys."""

    height: int
    width: int
    channels: int
    heads: int
    groups: int
    batch: int
    rounds: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}, {self.channels} channels, batch {self.batch}"

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def scores(self) -> int:
        return self.batch * self.heads * self.pixels**2


SHAPES = (
    Shape(28, 28, 192, 6, 3, 8, rounds=9),
    Shape(14, 14, 384, 12, 3, 8, rounds=15),
    Shape(7, 7, 768, 24, 6, 8, rounds=25),
    Shape(50, 84, 384, 12, 3, 1, rounds=5),
)
SIDES = (7, 14, 28, 56, 112)

# At their peak, float32, as measured.
BYTES_PER_SCORE = {"published": 57, "reference": 33, "dense": 13}
GB = 1e9

FREED = """
A process may keep the memory that it frees, as runs do (`src/freed_memory.py`), or return it to the system, as the C
library has it on its own (`--freed-memory returned`). What makes large tensors anew at each step gains most. Here:
""".strip().replace("\n", " ")

Arguments = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]  # q, k, v, table, points, queries


def run(options: Options) -> None:
    """Measures, and writes results.csv, README.md and figures.

    Raises:
        ValueError: a part or a device isn't there.
    """
    parts = options.chosen(PARTS)
    with measure.set_up(options):
        table = Table(options.output / "results.csv", options)
        try:
            if "core" in parts:
                _core(options, table)
            if "scaling" in parts:
                _scaling(options, table)
            if "flex" in parts:
                _flex(options, table)
        finally:  # what is interrupted shows what it has
            print(_written(table.rows, options))


def _core(options: Options, table: Table) -> None:
    dtypes = [torch.float32] if options.device == "cpu" else [torch.bfloat16, torch.float32]
    cases = [(shape, grid, dtype) for shape in SHAPES for grid in GRIDS for dtype in dtypes]
    progress = measure.Progress([_weight(shape, options) for shape, _, _ in cases])
    for shape, grid, dtype in cases:
        progress.begin(f"{shape}, {grid} grid, {_name(dtype)}")
        arguments = example(shape, grid, dtype, options.device)
        versions = {"published": published}
        names = ["reference", "dense", "fused"] + (["triton"] if options.device == "cuda" else [])
        versions |= {name: by_kernel(name) for name in (*names, "auto")}
        for name, needed in BYTES_PER_SCORE.items():
            if needed * shape.scores > (there := _memory(options.device)):
                print(
                    f"{name} left out: it needs about {needed * shape.scores / GB:.0f} GB, there are {there / GB:.0f}"
                )
                del versions[name]
        rows = {"part": "core", "case": str(shape), "grid": grid, "dtype": _name(dtype)}
        _add(table, rows, versions, arguments, shape.rounds, options)


def _scaling(options: Options, table: Table) -> None:
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    shapes = [Shape(n, n, 192, 6, 3, 1, rounds=3 if n > 56 else 9) for n in SIDES]
    if options.quick:
        shapes = shapes[:-1]
    progress = measure.Progress([_weight(shape, options) for shape in shapes])
    for shape in shapes:
        progress.begin(f"scaling, {shape}")
        arguments = example(shape, "published", dtype, options.device)
        versions: dict[str, Callable[..., Tensor]] = {"deformable": by_kernel("auto")}
        if 4 * shape.scores < LARGEST:
            versions["deformable, reference"] = by_kernel("reference")
        versions |= {"global, no bias": unbiased, "window": windowed(shape)}
        rows = {"part": "scaling", "case": str(shape), "side": shape.height, "grid": "published", "dtype": _name(dtype)}
        _add(table, rows, versions, arguments, shape.rounds, options)


def _add(
    table: Table,
    columns: Mapping[str, Any],
    versions: Mapping[str, Callable[..., Tensor]],
    arguments: Arguments,
    rounds: int,
    options: Options,
) -> None:
    """Rows of a competition whose first version is the baseline."""
    to_output = torch.randn_like(arguments[0])

    def step(version: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(version(*arguments), arguments[:5], to_output, allow_unused=True)

    baseline = next(iter(versions))
    used, saved, peak = dict[str, str](), dict[str, int](), dict[str, dict[str, float]]()
    for name, version in versions.items():
        gc.collect()
        with choose.watched() as kernels:
            saved[name] = saved_bytes(partial(version, *arguments), arguments[3:4])
            used[name] = " ".join(sorted(kernels))
        if (bytes_held := measure.peak_bytes(step(version), options.device)) is not None:
            peak[name] = {"peak_mb": bytes_held / MB}
    timings = compete(
        {name: timed(step(version), options.device) for name, version in versions.items()},
        baseline=baseline,
        rounds=_rounds(rounds, options),
    )
    for name, timing in timings.items():
        of_memory = {"saved_mb": saved[name] / MB, "times_less_saved": saved[baseline] / saved[name]}
        row = {**columns, "version": name, "kernel": used[name], "against": baseline, **timing.row(), **of_memory}
        table.add(**row, **peak.get(name, {}), allocator=_allocator(options))


# ------------------------------------------------------------------------------------- versions


def example(shape: Shape, grid: str, dtype: torch.dtype, device: str) -> Arguments:
    """q, k, v, table and points with gradients, and queries. Points move as far as published offsets do."""
    size, pixels, dim = (shape.height, shape.width), shape.pixels, shape.channels // shape.heads
    found, where = GRIDS[grid], torch.device(device)
    offsets = torch.tanh(torch.randn(shape.batch, shape.groups, *size, 2, device=where))
    points = found.keys(size, size, where) + offsets * (2 / torch.tensor(size, device=where))
    points = points.clamp(-1, 1) if grid == "DAT++" else points
    q, k, v = (torch.randn(shape.batch, shape.heads, pixels, dim, dtype=dtype, device=where) for _ in range(3))
    bias_table = torch.randn(shape.heads, 2 * shape.height - 1, 2 * shape.width - 1, device=where) * 0.5
    for tensor in (q, k, v, bias_table, points):
        tensor.requires_grad_()
    return q, k, v, bias_table, points, found.queries(size, where)


def published(q: Tensor, k: Tensor, v: Tensor, table: Tensor, points: Tensor, queries: Tensor) -> Tensor:
    """As the published code computes it, step by step."""
    batch, heads, _, dim = q.shape
    groups = points.shape[1]
    keys = rearrange(points, "b g hk wk yx -> (b g) (hk wk) yx")
    grid = rearrange(queries, "h w yx -> 1 (h w) yx").expand(len(keys), -1, -1)
    displacement = (grid[:, :, None] - keys[:, None]) * 0.5
    tables = table[None].expand(batch, -1, -1, -1).reshape(batch * groups, heads // groups, *table.shape[1:])
    bias = F.grid_sample(tables, displacement[..., (1, 0)], mode="bilinear", align_corners=True)
    channels_first = "b heads n d -> (b heads) d n"
    q, k, v = (rearrange(t, channels_first) for t in (q, k, v))
    scores = torch.einsum("bcm,bcn->bmn", q, k) * dim**-0.5
    weights = F.softmax(scores + bias.reshape(batch * heads, *scores.shape[1:]), dim=2)
    out = torch.einsum("bmn,bcn->bcm", weights.to(v.dtype), v)
    return rearrange(out, "(b heads) d n -> b heads n d", b=batch)


def by_kernel(name: str) -> Callable[..., Tensor]:
    """Our function by an implementation."""

    def version(q: Tensor, k: Tensor, v: Tensor, table: Tensor, points: Tensor, queries: Tensor) -> Tensor:
        return deformable_attention(q, k, v, BiasTable(table, points, queries, bilinear.grid_sample, name))

    return version


def unbiased(q: Tensor, k: Tensor, v: Tensor, table: Tensor, points: Tensor, queries: Tensor) -> Tensor:
    """torch's own attention of all pixels, without any bias."""
    return F.scaled_dot_product_attention(q, k, v)


def windowed(shape: Shape) -> Callable[..., Tensor]:
    """Windows of 7x7 with a dense bias, as window attention computes it."""
    cut = "b heads (rows wy cols wx) d -> (b rows cols) heads (wy wx) d"
    sizes = {"rows": shape.height // WINDOW, "wy": WINDOW, "cols": shape.width // WINDOW, "wx": WINDOW}

    def version(q: Tensor, k: Tensor, v: Tensor, table: Tensor, points: Tensor, queries: Tensor) -> Tensor:
        q, k, v = (rearrange(t, cut, **sizes) for t in (q, k, v))
        axis = torch.arange(WINDOW, device=q.device)
        pixels = torch.cartesian_prod(axis, axis)
        dy, dx = (pixels[:, None] - pixels[None] + WINDOW - 1).unbind(-1)
        back = "(b rows cols) heads (wy wx) d -> b heads (rows wy cols wx) d"
        return rearrange(attend(q, k, v, table[:, dy, dx].to(q.dtype)), back, **sizes)

    return version


# ------------------------------------------------------------------------------------- FlexAttention


def _flex(options: Options, table: Table) -> None:
    from torch.nn.attention.flex_attention import flex_attention

    dtype, both = (torch.float32, False) if options.device == "cpu" else (torch.bfloat16, True)
    attend_flexibly = torch.compile(flex_attention, dynamic=False)  # anew for each shape
    for shape in (SHAPES[1], SHAPES[0]):
        arguments = example(shape, "published", dtype, options.device)
        if not both:
            arguments = _detached(arguments)

        def flexible(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, points: Tensor, queries: Tensor) -> Tensor:
            return attend_flexibly(q, k, v, score_mod=score_function(bias, points, queries, q.shape[1]))

        versions = {"reference": by_kernel("reference"), "auto": by_kernel("auto"), "flex": flexible}
        columns = {"part": "flex", "case": str(shape), "grid": "published", "dtype": _name(dtype)}
        try:
            flexible(*arguments)
        except Exception as error:  # torch's compilers fail in many ways
            print(f"FlexAttention, {shape}: not possible here, {str(error).strip().splitlines()[0][:200]}")
            continue
        if both:
            _add(table, {**columns, "direction": "both"}, versions, arguments, shape.rounds, options)
        timings = compete(
            {n: timed(_forward(version, arguments), options.device) for n, version in versions.items()},
            baseline="reference",
            rounds=_rounds(shape.rounds, options),
        )
        for name, timing in timings.items():
            row = {**columns, "direction": "forward", "version": name, "against": "reference", **timing.row()}
            table.add(**row, allocator=_allocator(options))


def _forward(version: Callable[..., Tensor], arguments: Arguments) -> Callable[[], object]:
    def work() -> Tensor:
        with torch.no_grad():
            return version(*arguments)

    return work


def _detached(arguments: Arguments) -> Arguments:
    q, k, v, table, points, queries = (t.detach() for t in arguments)
    return q, k, v, table, points, queries


def score_function(table: Tensor, points: Tensor, queries: Tensor, heads: int) -> Callable[..., Tensor]:
    """The bias as FlexAttention takes it: from a score and its place to a score. Cells off the table are zeros."""
    height, width = table.shape[1:]
    padded, of_group = F.pad(table, (1, 1, 1, 1)), heads // points.shape[1]
    map_width = queries.shape[1]
    key_y, key_x = (points[..., i].flatten(2) * ((n - 1) / 4) for i, n in enumerate((height, width)))
    query_y = queries[:, 0, 0] * ((height - 1) / 4) + (height - 1) / 2
    query_x = queries[0, :, 1] * ((width - 1) / 4) + (width - 1) / 2

    def score(score: Tensor, b: Tensor, h: Tensor, i: Tensor, k: Tensor) -> Tensor:
        group = h // of_group
        y = (query_y[i // map_width] - key_y[b, group, k] + 1).clamp(0, height + 1)  # of the padded table
        x = (query_x[i % map_width] - key_x[b, group, k] + 1).clamp(0, width + 1)
        top, left = y.floor().clamp(max=height), x.floor().clamp(max=width)
        down, right = y - top, x - left
        row, column = top.long(), left.long()
        upper = padded[h, row, column] * (1 - right) + padded[h, row, column + 1] * right
        lower = padded[h, row + 1, column] * (1 - right) + padded[h, row + 1, column + 1] * right
        return score + upper * (1 - down) + lower * down

    return score


# ------------------------------------------------------------------------------------- what is written


def _written(rows: list[dict[str, Any]], options: Options) -> str:
    """The tables, also in README.md beside the figures."""
    parts = {part: [row for row in rows if row["part"] == part] for part in PARTS}
    said = ["# Deformable attention alone", "`python -m src.benchmark op` writes this page."]
    if rows:
        said += [f"{FREED} {'; '.join(dict.fromkeys(row['allocator'] for row in rows))}."]
    columns = {"case": text("case"), "grid": text("grid"), "type": text("dtype"), "version": text("version")}
    last = {"used": text("kernel"), "ms": number("ms", 1), "saved, MB": number("saved_mb", 1)}
    last |= {"times less saved": number("times_less_saved", 1)}
    if parts["core"]:
        said += ["Forward and backward, times as fast as the published formula:"]
        said += [markdown(parts["core"], columns | {"times as fast": ratio} | last)]
        panels: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for row in parts["core"]:
            if row["version"] != row["against"]:
                head = f"{row['case']}, {row['grid']} grid, {row['dtype']}"
                panels.setdefault(head, []).append((f"{row['version']} ({row['saved_mb']:,.0f} MB saved)", row))
        note = "Forward and backward of deformable attention's core. " + measure.recorded_on(parts["core"])
        save(ratios(panels, baseline="the published formula", text=note), options.output, "core")
    if parts["scaling"]:
        said += ["Forward and backward over the size of the map, every pixel a key, times as fast as `deformable`:"]
        said += [markdown(parts["scaling"], columns | {"times as fast": ratio} | last)]
        lines: dict[str, dict[str, list[tuple[float, float]]]] = {"time, ms": {}, "saved, MB": {}}
        for row in parts["scaling"]:
            for head, column in (("time, ms", "ms"), ("saved, MB", "saved_mb")):
                lines[head].setdefault(row["version"], []).append((row["side"], row[column]))
        note = "Forward and backward, 192 channels, one image. " + measure.recorded_on(parts["scaling"])
        save(curves(lines, x="side of the map, pixels", first="deformable", text=note), options.output, "scaling")
    if parts["flex"]:
        said += ["FlexAttention, compiled, times as fast as `reference`:"]
        directions = {"direction": text("direction"), "times as fast": ratio, "ms": number("ms", 1)}
        said += [markdown(parts["flex"], columns | directions)]
    said += [measure.recorded_on(rows)] if rows else []
    whole = "\n\n".join(said)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "README.md").write_text(whole + "\n")
    return whole


def _weight(shape: Shape, options: Options) -> float:
    """About how long a case takes: by its scores, and as long as some four million of them whatever its size."""
    return (shape.scores + 4e6) * _rounds(shape.rounds, options)


def _rounds(usual: int, options: Options) -> int:
    return options.rounds or (2 if options.quick else usual)


def _memory(device: str) -> float:
    """Bytes that are free for a competition; unknown is unlimited."""
    if device == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), math.inf)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _allocator(options: Options) -> str:
    settings = [f"{key}={value}" for key, value in sorted(os.environ.items()) if key.startswith("MALLOC_")]
    return " ".join([f"freed memory {options.freed_memory}", *settings])
