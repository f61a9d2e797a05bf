"""How fast is neighborhood attention in tiles? `OMP_NUM_THREADS=1 python experiments/neighborhood/benchmark.py`

Forward and backward of one module on the maps of a tiny network at 224 pixels. The contestants take turns in one
process, and a ratio compares times of the same round, so that what else the machine does hits them alike.
"""

import argparse
import csv
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from src.models.attention.neighborhood import NattenNeighborhoodAttention, NeighborhoodAttention, natten_with_bias
from src.models.attention.window import WindowAttention

BATCH, HEAD_DIM, SIDE = 8, 32, 7
MAPS = {56: 2, 28: 4, 14: 8, 7: 16}  # side of the map: heads
COLUMNS = ("map", "heads", "attention", "ms", "ratio", "ratio_low", "ratio_high", "rounds", "hardware")


class GatheringNeighborhoodAttention(NeighborhoodAttention):
    """The same attention, straight from its definition: a copy of the keys and values of each query's neighborhood."""

    def attend_nearby(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        size = self.neighborhood_size
        table: Tensor = self.bias_table
        for axis, length in enumerate(q.shape[2:4]):
            pixel = torch.arange(length, device=q.device)[:, None]
            span = min(size, length)
            nearby = (pixel - size // 2).clamp(0, length - span) + torch.arange(span, device=q.device)
            # Each axis of keys, and of the table, becomes two: of the query's pixels, and of its neighbors.
            k, v = (_select(t, 2 + 2 * axis, nearby) for t in (k, v))
            table = _select(table, 1 + 2 * axis, nearby - pixel + size - 1)
        # (B, heads, H, ky, W, kx, d) and (heads, H, ky, W, kx)
        scores = torch.einsum("bhyxd,bhykxld->bhyxkl", q * q.shape[-1] ** -0.5, k) + table.transpose(2, 3)
        weights = scores.flatten(4).softmax(dim=-1).view_as(scores)
        return torch.einsum("bhyxkl,bhykxld->bhyxd", weights, v)


def _select(tensor: Tensor, axis: int, index: Tensor) -> Tensor:
    """`index`, of two axes, into one axis; unlike indexing with brackets, its gradient is fast on a CPU."""
    return tensor.index_select(axis, index.flatten()).unflatten(axis, index.shape)


class UnfoldingNeighborhoodAttention(NeighborhoodAttention):
    """The same attention by torch's unfold: a view of all windows on the map, of which each query takes its own."""

    def attend_nearby(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        size = self.neighborhood_size
        height, width = q.shape[2:4]
        pixels = [torch.arange(length, device=q.device) for length in (height, width)]
        starts = [(p - size // 2).clamp(0, len(p) - size) for p in pixels]

        def windows(t: Tensor) -> Tensor:  # (B, heads, H, W, d, ky, kx)
            return t.unfold(2, size, 1).unfold(3, size, 1).index_select(2, starts[0]).index_select(3, starts[1])

        k, v = windows(k), windows(v)
        span = torch.arange(size, device=q.device)
        dy, dx = (s[:, None] + span - p[:, None] + size - 1 for s, p in zip(starts, pixels, strict=True))
        bias = _select(_select(self.bias_table, 1, dy), 3, dx)  # (heads, H, ky, W, kx)
        scores = torch.einsum("bhyxd,bhyxdkl->bhyxkl", q * q.shape[-1] ** -0.5, k) + bias.transpose(2, 3)
        weights = scores.flatten(4).softmax(dim=-1).view_as(scores)
        return torch.einsum("bhyxkl,bhyxdkl->bhyxd", weights, v)


def contestants(dim: int, heads: int) -> dict[str, nn.Module]:
    """Modules by name, ours first; those of neighborhoods have the same weights."""
    kinds = {"tiles": NeighborhoodAttention, "gather": GatheringNeighborhoodAttention}
    kinds["unfold"] = UnfoldingNeighborhoodAttention
    if natten_with_bias() is not None:
        kinds["natten"] = NattenNeighborhoodAttention
    modules: dict[str, nn.Module] = {name: kind(dim, heads, neighborhood_size=SIDE) for name, kind in kinds.items()}
    for module in modules.values():
        module.load_state_dict(modules["tiles"].state_dict())
    return modules | {"window": WindowAttention(dim, heads, window_size=SIDE)}


def seconds(module: nn.Module, x: Tensor) -> float:
    """Of one forward and backward."""
    module.zero_grad(set_to_none=True)
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    _wait(x)
    start = time.perf_counter()
    module(x).sum().backward()
    _wait(x)
    return time.perf_counter() - start


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()


def measure(side: int, heads: int, rounds: int, device: str) -> list[dict[str, str]]:
    """A row for each contestant on one map."""
    modules = {name: module.to(device) for name, module in contestants(heads * HEAD_DIM, heads).items()}
    x = torch.randn(BATCH, heads * HEAD_DIM, side, side, device=device).to(memory_format=torch.channels_last)
    expected = modules["tiles"](x)
    for name in modules.keys() - {"window"}:
        torch.testing.assert_close(modules[name](x), expected, rtol=1e-3, atol=1e-4)
    times: dict[str, list[float]] = {name: [] for name in modules}
    for turn in range(rounds + 1):
        for name, module in modules.items():
            taken = seconds(module, x)
            if turn:  # the first warms up
                times[name].append(taken)
    rows = []
    for name, series in times.items():
        ratios = [t / ours for t, ours in zip(series, times["tiles"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        figures = (
            f"{1000 * statistics.median(series):.2f}",
            *(f"{r:.3f}" for r in (statistics.median(ratios), low, high)),
        )
        values = (f"{side}x{side}", str(heads), name, *figures, str(rounds), hardware(device))
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def hardware(device: str) -> str:
    """What the times depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    chip = torch.cuda.get_device_name() if device == "cuda" else (models or [platform.processor()])[0]
    return f"{chip}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.csv"))
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error("a spread needs at least 2 rounds")
    torch.manual_seed(0)
    rows = [row for side, heads in MAPS.items() for row in measure(side, heads, arguments.rounds, arguments.device)]
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)

    text = page(rows)
    arguments.out.with_name("README.md").write_text(text)
    print(text)


def page(rows: list[dict[str, str]]) -> str:
    """The table of recorded rows, with what it is a table of."""
    lines = [
        "# Neighborhood attention",
        "",
        "How fast is it in tiles? Against the same attention by copies of each query's keys (`gather`), by torch's",
        "unfold and by NATTEN, where a version with the bias is installed, and against window attention, which has a",
        "third of the scores. `OMP_NUM_THREADS=1 PYTHONPATH=. python experiments/neighborhood/benchmark.py`",
        "writes this page.",
        "",
        f"Forward and backward, batch {BATCH}, heads of {HEAD_DIM}, neighborhoods and windows of {SIDE}x{SIDE};",
        f"medians of {rows[0]['rounds']} rounds.",
        f"Recorded on {rows[0]['hardware']}.",
        "",
        "| map | heads | attention | ms | time / time of tiles (quartiles) |",
        "|---|---|---|---|---|",
    ]
    for r in rows:
        spread = "" if r["attention"] == "tiles" else f"{float(r['ratio']):.2f} ({float(r['ratio_low']):.2f} to "
        spread += f"{float(r['ratio_high']):.2f})" if spread else "1"
        lines.append(f"| {r['map']} | {r['heads']} | {r['attention']} | {float(r['ms']):.0f} | {spread} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
