"""How should jobs share the cores? `PYTHONPATH=. python experiments/workers/benchmark.py` writes this folder's page.

Processes train the baseline on digit scenes for some seconds, alone or side by side, with one thread or with all.
Layouts take turns, and a ratio compares the same round.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent
SECONDS = 8.0
COLUMNS = ("workers", "threads", "round", "images_per_second", "hardware")


def work() -> None:
    """A worker: for each line on its input it trains for `SECONDS` and prints the images per second."""
    import torch

    from src.config import build, build_model, load_config
    from src.runs.provenance import hardware

    cfg = load_config()
    net, data = build_model(cfg), build(cfg["data"])
    data.setup("fit")
    images, labels = next(iter(data.train_dataloader()))
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()

    for _ in range(3):
        step()
    print(f"{hardware()['cpu']}, {os.cpu_count()} cores, torch {torch.__version__}", flush=True)
    for _ in sys.stdin:
        steps, began = 0, time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            step()
            steps += 1
        print(steps * len(images) / (time.perf_counter() - began), flush=True)


def measure(rounds: int) -> list[dict[str, object]]:
    """A row per layout and round; the images per second of all its workers together."""
    cores = len(os.sched_getaffinity(0))
    layouts = [(1, 1), (1, cores), (cores, 1), (cores, cores)]
    workers, hardware = {}, ""
    for threads in (1, cores):
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        for number in range(cores):
            command = [sys.executable, __file__, "--worker"]
            pipe = subprocess.PIPE
            worker = subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True)
            workers[threads, number] = worker
            hardware = worker.stdout.readline().strip()
    rows = []
    for turn in range(rounds):
        for count, threads in layouts:
            chosen = [workers[threads, number] for number in range(count)]
            for worker in chosen:
                worker.stdin.write("go\n")
                worker.stdin.flush()
            total = sum(float(worker.stdout.readline()) for worker in chosen)
            rows.append(dict(zip(COLUMNS, (count, threads, turn, round(total, 2), hardware), strict=True)))
            print(rows[-1], file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return rows


def page(rows: list[dict[str, str]]) -> str:
    """README.md from the rows."""
    found: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        found.setdefault((int(row["workers"]), int(row["threads"])), []).append(float(row["images_per_second"]))
    base = found[1, 1]
    lines = [
        "# How jobs share the cores",
        "",
        "**Question.** Two jobs on two cores: side by side on one thread each, or one after the other on two?",
        "",
        f"**Answer.** {answer(found)}",
        "",
        "**Command.** `PYTHONPATH=. python experiments/workers/benchmark.py` writes this page. Processes train the",
        f"baseline's network on batches of 32 scenes for {SECONDS:.0f} s; layouts take turns, {len(base)} rounds.",
        "",
        "| jobs at a time | threads each | images per second, all jobs | of one job on one thread (quartiles) |",
        "|---|---|---|---|",
    ]
    for (workers, threads), speeds in found.items():
        low, middle, high = statistics.quantiles([speed / one for speed, one in zip(speeds, base, strict=True)], n=4)
        ratio = "1" if (workers, threads) == (1, 1) else f"{middle:.2f} ({low:.2f} to {high:.2f})"
        lines.append(f"| {workers} | {threads} | {statistics.median(speeds):.0f} | {ratio} |")
    return "\n".join([*lines, "", f"Recorded on {rows[0]['hardware']}.", ""])


def answer(found: dict[tuple[int, int], list[float]]) -> str:
    cores = max(workers for workers, _ in found)

    def ratio(one: tuple[int, int], other: tuple[int, int]) -> float:
        return statistics.median(a / b for a, b in zip(found[one], found[other], strict=True))

    apart, crowded = ratio((cores, 1), (1, cores)), ratio((cores, cores), (cores, 1))
    return (
        f"Side by side on one thread each: {apart:.2f} times as many images per second as one job on {cores} threads. "
        f"With {cores} threads each they get in each other's way: {crowded:.2f} of that."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--page", action="store_true", help="only write the page anew from results.csv")
    arguments = parser.parse_args()
    if arguments.worker:
        work()
        return
    if not arguments.page:
        with (FOLDER / "results.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(measure(arguments.rounds))
    with (FOLDER / "results.csv").open(newline="") as file:
        (FOLDER / "README.md").write_text(page(list(csv.DictReader(file))))


if __name__ == "__main__":
    main()
