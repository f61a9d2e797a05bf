"""Versions of one computation, timed against each other.

Machines are noisy, and what else they do changes from minute to minute. So versions take turns in one process, begin
with another one in each round, and a ratio compares times of the same round; its median and quartiles over the rounds
are what is said of a version.
"""

import csv
import gc
import io
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from src.benchmarks.options import Options
from src.runs.durations import duration
from src.runs.provenance import provenance
from src.runs.record import write_atomically

MB = 1e6

Name = TypeVar("Name", bound=Hashable)  # of a version
Version = Callable[[], float]  # does its work once, and returns the seconds that it took


# ------------------------------------------------------------------------------------- time


def timed(work: Callable[[], object], device: str | torch.device = "cpu") -> Version:
    """`work` as a version: by the wall clock, with what it has queued on a GPU."""

    def version() -> float:
        wait(device)
        began = time.perf_counter()
        work()
        wait(device)
        return time.perf_counter() - began

    return version


def wait(device: str | torch.device) -> None:
    """Until all that was queued on a GPU is done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Quartiles as the values between which the middle half lies; one value is its own spread."""
        values = list(values)
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)


@dataclass(frozen=True)
class Timing:
    """What a competition found of one version.

    Attributes:
        seconds: of each round.
        times_as_fast: the baseline's seconds over this version's, round by round: above 1 is faster.
    """

    seconds: tuple[float, ...]
    times_as_fast: tuple[float, ...]

    def against(self, baseline: "Timing") -> "Timing":
        """The same seconds, compared with another version of the same rounds."""
        return Timing(self.seconds, tuple(b / s for b, s in zip(baseline.seconds, self.seconds, strict=True)))

    def row(self) -> dict[str, float | int]:
        """Columns of a table: the ratio first."""
        ratio, ms = Spread.of(self.times_as_fast), Spread.of(1000 * s for s in self.seconds)
        return {
            "times_as_fast": ratio.median,
            "times_as_fast_low": ratio.low,
            "times_as_fast_high": ratio.high,
            "ms": ms.median,
            "ms_low": ms.low,
            "ms_high": ms.high,
            "rounds": len(self.seconds),
        }


def compete(
    versions: Mapping[Name, Version],
    *,
    baseline: Name,
    rounds: int,
    warm_up: int = 1,
    between: Callable[[], object] = gc.collect,
) -> dict[Name, Timing]:
    """Times versions in turn.

    Args:
        baseline: the version that others are compared with.
        rounds: in each, every version works once; the order is rotated by one from round to round.
        warm_up: rounds before, which don't count.
        between: happens before each version's turn, outside of its time.

    Raises:
        ValueError: there is no such baseline.
    """
    if baseline not in versions:
        raise ValueError(f"no version {baseline!r} to compare with; there are {', '.join(map(str, versions))}")
    names = list(versions)
    seconds: dict[Name, list[float]] = {name: [] for name in names}
    for turn in range(-warm_up, rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            between()
            taken = versions[name]()
            if turn >= 0:
                seconds[name].append(taken)
    return {
        name: Timing(tuple(own), tuple(base / s for base, s in zip(seconds[baseline], own, strict=True)))
        for name, own in seconds.items()
    }


# ------------------------------------------------------------------------------------- memory


def saved_bytes(forward: Callable[[], object], parts: nn.Module | Iterable[Tensor] = ()) -> int:
    """Bytes that autograd keeps for the gradient after `forward`.

    Storages are counted once however many tensors lie in them.

    Args:
        parts: parameters and buffers, which are there anyway and don't count: a module's, or these.
    """
    tensors = [*parts.parameters(), *parts.buffers()] if isinstance(parts, nn.Module) else list(parts)
    there = {_place(tensor) for tensor in tensors}
    kept: dict[tuple[torch.device, int], torch.UntypedStorage] = {}  # held, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        if tensor.device.type != "meta" and _place(tensor) not in there:
            kept[_place(tensor)] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(storage.nbytes() for storage in kept.values())


def _place(tensor: Tensor) -> tuple[torch.device, int]:
    return tensor.device, tensor.untyped_storage().data_ptr()


def peak_bytes(work: Callable[[], object], device: str | torch.device) -> int | None:
    """The most memory that `work` has held on a GPU beyond what was held before; None on a CPU."""
    if torch.device(device).type != "cuda":
        return None
    gc.collect()
    wait(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    wait(device)
    return torch.cuda.max_memory_allocated(device) - before


# ------------------------------------------------------------------------------------- what was found


class Table:
    """Rows as they are found, in a CSV file that is whole after each of them.

    The machine and the versions stand in every row, so that rows of several files can be put together.

    Args:
        path: of the file; one that is there is replaced by the first row.
    """

    def __init__(self, path: Path, options: Options):
        self.path, self.rows = path, list[dict[str, Any]]()
        self._machine = machine(options.device)

    def add(self, **row: Any) -> dict[str, Any]:
        """One more row; columns that earlier rows don't have are empty there."""
        whole = {**row, **self._machine}
        self.rows.append(whole)
        columns = list(dict.fromkeys(key for r in self.rows for key in r if key not in self._machine))
        text = io.StringIO()
        writer = csv.DictWriter(text, [*columns, *self._machine], lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _digits(value) for key, value in r.items()} for r in self.rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, text.getvalue())
        return whole


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a `Table`'s file; numbers as numbers, empty cells as None."""

    def value(text: str) -> Any:
        try:
            return float(text) if text else None
        except ValueError:
            return text

    with path.open(newline="") as file:
        return [{key: value(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _digits(value: Any) -> Any:
    return f"{value:.5g}" if isinstance(value, float) else value


def machine(device: str) -> dict[str, Any]:
    """The columns that say on what a number was measured."""
    made_by = provenance()
    hardware, versions = made_by["hardware"], made_by["versions"]
    chip = torch.cuda.get_device_name() if device == "cuda" else hardware["cpu"]
    return {
        "device": device,
        "hardware": chip,
        "threads": torch.get_num_threads(),
        "cores": hardware["cores_usable"],
        "torch": versions["torch"],
        "timm": versions["timm"],
        "commit": (made_by["git"]["commit"] or "")[:10] + ("+" if made_by["git"]["dirty"] else ""),
    }


def recorded_on(rows: Sequence[Mapping[str, Any]]) -> str:
    """The machine of rows, in a line."""
    found = {f"{r['hardware']}, {int(r['threads'])} thread(s), torch {r['torch']}" for r in rows}
    return f"Recorded on {'; '.join(sorted(found))}."


@contextmanager
def set_up(options: Options) -> Iterator[None]:
    """torch as the options say: its threads, and the same random numbers each time; as before afterwards.

    Raises:
        ValueError: there is no such device here.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no CUDA device here; leave it out to measure the CPU")
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads or before)
    torch.manual_seed(0)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ------------------------------------------------------------------------------------- what is said


class Progress:
    """How far a benchmark is, and how long it still takes, on stderr.

    Args:
        weights: about how long each case takes compared with the others, in the order they come.
    """

    def __init__(self, weights: Sequence[float]):
        self._weights, self._done, self._began = list(weights), 0, time.monotonic()

    def begin(self, case: str) -> None:
        """Says which case is next."""
        left = f", about {duration(self.seconds_left())} left" if self._done else ""
        print(f"[{self._done + 1}/{len(self._weights)}] {case}{left}", file=sys.stderr, flush=True)
        self._done += 1

    def seconds_left(self) -> float:
        """By the cases that are done."""
        done, left = sum(self._weights[: self._done]), sum(self._weights[self._done :])
        return (time.monotonic() - self._began) / done * left


def markdown(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Callable[[Mapping[str, Any]], str]]) -> str:
    """A table of rows.

    Args:
        columns: by heading, what a row has there. `ratio`, `number` and `text` make such functions.
    """
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*lines, *(f"| {' | '.join(cell(row) for cell in columns.values())} |" for row in rows)])


def ratio(row: Mapping[str, Any]) -> str:
    """How many times as fast as the baseline, with quartiles; the baseline is 1."""
    low, high = row["times_as_fast_low"], row["times_as_fast_high"]
    if low == high == 1:
        return "1"
    return f"{row['times_as_fast']:.2f} ({low:.2f} to {high:.2f})"


def number(column: str, digits: int = 0, unit: float = 1) -> Callable[[Mapping[str, Any]], str]:
    """A column in units of `unit`; empty where a row has none."""
    return lambda row: "" if row.get(column) is None else f"{row[column] / unit:,.{digits}f}"


def text(column: str) -> Callable[[Mapping[str, Any]], str]:
    """A column as it is."""
    return lambda row: str("" if row.get(column) is None else row[column])
