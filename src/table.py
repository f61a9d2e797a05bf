"""A table of a study's finished runs: `python -m src.table runs/demo`."""

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from src.commands import command
from src.runs.record import find_records


def rows(root: str | Path) -> list[dict[str, Any]]:
    """One row per finished run below `root`, in the order of the folders."""
    return rows_of(record for record in find_records(root) if record["status"] == "finished")


def rows_of(records: Iterable[Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    """One row per finished run."""
    return [_row(record) for record in records if record is not None]


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    cfg, metrics, hardware = record["config"], record["metrics"], record["hardware"]
    return {
        "name": record["name"],
        "seed": record["seed"],
        "identity": record["identity"],
        "commit": (record["git"]["commit"] or "")[:10],
        "params": record["params"],
        "macs": record["macs"],
        "val/acc1": metrics["val/acc1"],
        "test/acc1": metrics["test/acc1"],
        "images_per_second": metrics["images_per_second"],
        "peak_memory_mb": metrics["peak_memory_mb"],
        "seconds": record["wall_seconds"],
        "data": cfg["data"]["name"],
        "data_fingerprint": record["data_fingerprint"],
        "model": cfg["model"]["name"],
        "cpu": hardware["cpu"],
        "gpus": " ".join(gpu["name"] for gpu in hardware["gpus"]),
        "threads": hardware["threads"],
        "torch": record["versions"]["torch"],
        "published_top1": (cfg["published"] or {}).get("top1", ""),
    }


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A row per run, at least one, for figures and tables that are made later."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, Any]]:
    """What `write_csv` wrote, numbers as numbers."""
    texts = {"name", "identity", "commit", "data", "data_fingerprint", "model", "cpu", "gpus", "torch"}
    with path.open(newline="") as file:
        return [
            {key: value if key in texts or not value else float(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def markdown(rows: Iterable[Mapping[str, Any]]) -> str:
    """A line per variant: accuracy over the seeds with its sample standard deviation, and the cost.

    The published column is another protocol (DAT-T, ImageNet-1K, one run): for the order of rows, not their size.
    """
    variants: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        variants[row["name"]].append(row)
    names = sorted(variants, key=lambda name: (name != "baseline", name))
    lines = [
        "| variant | seeds | test top-1, % | parameters | MACs | s per run | published top-1, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        runs = variants[name]
        accuracy = [100 * run["test/acc1"] for run in runs]
        spread = f" ± {stdev(accuracy):.1f}" if len(runs) > 1 else ""
        published = f"{float(runs[0]['published_top1']):.1f}" if runs[0]["published_top1"] else ""
        lines.append(
            f"| {name} | {len(runs)} | {mean(accuracy):.1f}{spread} | {runs[0]['params'] / 1e6:.3f} M "
            f"| {runs[0]['macs'] / 1e6:.1f} M | {mean(run['seconds'] for run in runs):.0f} | {published} |"
        )
    return "\n".join(lines)


def hardware(rows: Iterable[Mapping[str, Any]]) -> str:
    """On what the runs were computed, in a line."""
    machines = {f"{row['gpus'] or row['cpu']}, {row['threads']:.0f} thread(s), torch {row['torch']}" for row in rows}
    return f"Recorded on {'; '.join(sorted(machines))}."


@command()
def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="a folder of runs, such as runs/demo")
    parser.add_argument("--csv", type=Path, help="also write a row per run to this file")
    arguments = parser.parse_args()
    found = rows(arguments.root)
    if not found:
        raise ValueError(f"no finished run below {arguments.root}; start one with python -m src.train study=...")
    print(markdown(found))
    if arguments.csv:
        write_csv(found, arguments.csv)


if __name__ == "__main__":
    sys.exit(main())
