"""The page and the figures of recorded steps."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from src.benchmarks.figures import curves, ratios
from src.benchmarks.measure import markdown, number, ratio, recorded_on, text

# A step of DAT-T in bfloat16 on an H200, bound by its memory traffic: a model, not a measurement.
MODELLED_IMAGES, MODELLED_SECONDS = 128, (0.009, 0.012)

INTRODUCTION = """
# A training step

Forward and backward of whole networks in training mode, without dropped branches. `python -m src.benchmark step` writes
this page. Versions take turns in one process; ratios compare times of one round, medians with quartiles. Saved: what
autograd keeps for the gradient, each storage once, parameters left out. The transcription is the published code's
computation, written anew (`tests/reference/`); that of DAT++ has no NATTEN and copies the keys of every query, so that
a ratio to it says little about the published code. "1x1 convolutions alone" are all of them, forward and backward, on
random numbers: what a step would take if all else took no time. Freed memory stays with the process, as in training
(`src/freed_memory.py`: blocks of up to 32 MiB), for every version.
"""

Row = Mapping[str, Any]


def said(rows: Sequence[Row]) -> str:
    """The page of recorded rows."""
    lines = [INTRODUCTION.strip(), "", recorded_on(rows), ""]
    of = {part: [row for row in rows if row["part"] == part] for part in ("networks", "scaling", "shares", "loader")}
    if of["networks"]:
        lines += [
            "## Networks",
            "",
            _networks_table(of["networks"]),
            "",
            _picture("networks", "Ratios of step times"),
            "",
        ]
    if of["scaling"]:
        lines += ["## Over batches and image sizes", "", _scaling_table(of["scaling"]), ""]
        lines += [_picture("scaling", "Time and memory over batches"), ""]
    if of["shares"]:
        lines += ["## What remains", "", "Share of a step's time by kind of operator, in %, forward and backward.", ""]
        lines += [_shares_table(of["shares"]), ""]
    if of["loader"]:
        lines += ["## The loader", "", cores(of["loader"][0]), ""]
    return "\n".join(lines)


def _picture(name: str, alt: str) -> str:
    return (
        f'<picture>\n<source media="(prefers-color-scheme: dark)" srcset="{name}-dark.svg">\n'
        f'<img src="{name}.svg" alt="{alt}">\n</picture>'
    )


def _networks_table(rows: Sequence[Row]) -> str:
    columns = {
        "network": text("version"),
        "precision": text("precision"),
        "times as fast as the transcription": ratio,
        "as that in float32": number("times_as_fast_as_float32", 3),
        "saved, of the transcription's": number("saved_ratio", 2),
        "ms": number("ms"),
        "saved, MB": number("saved_mb"),
        "images per second": number("images_per_second", 2),
    }
    if any(row["peak_mb"] is not None for row in rows):
        columns["peak, MB"] = number("peak_mb")
    tables = []
    for family in dict.fromkeys(row["family"] for row in rows):
        own = [row for row in rows if row["family"] == family]
        what = f"{own[0]['pixels']:.0f} pixels, batch {own[0]['batch']:.0f}, {own[0]['rounds']:.0f} rounds"
        tables.append(f"{family}, {what}:\n\n{markdown(own, columns)}")
    return "\n\n".join(tables)


def _scaling_table(rows: Sequence[Row]) -> str:
    columns = {
        "pixels": number("pixels"),
        "batch": number("batch"),
        "network": text("version"),
        "times as fast as swin_tiny": ratio,
        "ms": number("ms"),
        "saved, MB": number("saved_mb"),
    }
    return markdown(rows, columns)


def _shares_table(rows: Sequence[Row]) -> str:
    """For each family, kinds below each other, a column for each network and precision."""
    tables = []
    for family in dict.fromkeys(row["family"] for row in rows):
        own = [row for row in rows if row["family"] == family]
        cases = dict.fromkeys((row["version"], row["precision"]) for row in own)
        share = {(row["version"], row["precision"], row["kind"]): row["share"] for row in own}
        lines = [
            f"| {family} | {' | '.join(', '.join(case) for case in cases)} |",
            f"|{'---|' * (len(cases) + 1)}",
        ]
        for kind in dict.fromkeys(row["kind"] for row in own):
            cells = (f"{100 * share[(*case, kind)]:.1f}" if (*case, kind) in share else "" for case in cases)
            lines.append(f"| {kind} | {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def cores(row: Row) -> str:
    """How many cores a GPU needs, by the recorded speed of one."""
    slow, fast = (MODELLED_IMAGES / seconds for seconds in reversed(MODELLED_SECONDS))
    speed = row["images_per_second"]
    return (
        f"One core decodes and augments {speed:.0f} ({row['images_per_second_low']:.0f} to "
        f"{row['images_per_second_high']:.0f}) ImageNet-like JPEG images a second (500x375 pixels, "
        f"{row['kilobytes']:.0f} kB, DeiT's augmentation). A GPU that trains DAT-T at R images a second needs "
        f"R / {speed:.0f} cores: {1000 / speed:.0f} for each thousand. By a model of an H200 (not a measurement: "
        f"bfloat16, bound by memory, {MODELLED_SECONDS[0] * 1000:.0f} to {MODELLED_SECONDS[1] * 1000:.0f} ms a step "
        f"of {MODELLED_IMAGES}) R is at most {slow:,.0f} to {fast:,.0f}, and that many images need "
        f"{slow / speed:.0f} to {fast / speed:.0f} cores."
    )


def figures(rows: Sequence[Row]) -> dict[str, Figure]:
    """By file name."""
    found: dict[str, Figure] = {}
    networks = [row for row in rows if row["part"] == "networks"]
    if networks:
        panels: dict[str, list[tuple[str, Row]]] = {}
        for row in networks:
            panels.setdefault(f"{row['family']}, {row['precision']}", []).append((row["version"], row))
        found["networks"] = ratios(panels, baseline="the transcription", text="Forward and backward.")
    scaling = [row for row in rows if row["part"] == "scaling"]
    scaling = [row for row in scaling if row["pixels"] == scaling[0]["pixels"]]
    if len({row["batch"] for row in scaling}) > 1:
        quantities = {"ms": "ms", "saved, MB": "saved_mb"}
        names = dict.fromkeys(row["version"] for row in scaling)
        lines = {
            head: {name: [(r["batch"], r[column]) for r in scaling if r["version"] == name] for name in names}
            for head, column in quantities.items()
        }
        size = f"{scaling[0]['pixels']:.0f} pixels, float32, forward and backward."
        found["scaling"] = curves(lines, x="images", first="DAT-T", text=size)
    return found
