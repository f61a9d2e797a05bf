"""The first ablation in some minutes: `make demo` trains the baseline and the no-offset ablation on digit scenes."""

import argparse
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from src.runs.durations import duration
from src.table import markdown, rows, write_csv

STUDY = "demo"
RUNS = Path("runs")
JOBS = [(name, seed) for seed in (0, 1) for name in ("baseline", "ablate_no_offset")]


def main() -> int:
    """Runs the jobs side by side, each on its share of the cores; finished ones are not computed again."""
    lanes = min(len(JOBS), os.cpu_count() or 1)
    threads = max(1, (os.cpu_count() or 1) // lanes)
    print(
        f"{len(JOBS)} runs, {lanes} at a time on {threads} core(s) each; the next line comes after about 30 s",
        flush=True,
    )
    began = time.monotonic()
    waiting, failed = list(JOBS), []
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                job = waiting.pop(0)
            if _run(*job, threads=threads) != 0:
                failed.append(job)

    workers = [threading.Thread(target=work) for _ in range(lanes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    finished = rows(RUNS / STUDY)
    if finished:
        write_csv(finished, RUNS / STUDY / "results.csv")
        print(f"\n{markdown(finished)}\n")
        print(f"published: DAT-T on ImageNet-1K, one run; here: {finished[0]['model']} on {finished[0]['data']} scenes")
        print(f"rows:      {RUNS / STUDY / 'results.csv'}")
        print(
            f"each run:  {RUNS / STUDY}/<variant>/seed<n>-<identity>/: record, curves, predictions, weights, log, W&B"
        )
    print(f"took {duration(time.monotonic() - began)}")
    for name, seed in failed:
        print(
            f"failed: {name} seed {seed}; see log.txt and error.txt in its folder, then make demo again",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _run(name: str, seed: int, *, threads: int) -> int:
    """One run in a process of its own, its progress lines shown under its name."""
    command = [
        sys.executable,
        "-m",
        "src.train",
        f"experiment={name}",
        f"seed={seed}",
        f"study={STUDY}",
        "progress=lines",
    ]
    # Threads of two jobs must not share a core: waiting for each other they would spin.
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        [*command, f"runs={RUNS}"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout
    for line in process.stdout:
        if re.match(r"epoch \d+/\d+ .*val/acc1|.*\] - val/acc1|.* is finished|.*Error", line):
            print(f"{name:17} seed {seed}  {line.strip().rpartition('] - ')[2]}", flush=True)
    return process.wait()


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # so that a question isn't taken for a start
    sys.exit(main())
