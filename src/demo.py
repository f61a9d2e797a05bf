"""The first ablation in some minutes: `make demo` runs the study `experiments/demo/` and prints its table."""

import argparse
import sys
import time
from pathlib import Path

from src.commands import command
from src.runs.durations import duration
from src.studies.states import states
from src.studies.table import find_tables, read_table
from src.study import RUNS, main
from src.table import markdown, rows_of, write_csv

STUDY = "demo"


@command(interrupted="the same command goes on with what isn't finished")
def demo() -> int:
    """Runs what isn't finished; the exit code is that of the study."""
    argparse.ArgumentParser(prog="python -m src.demo", description=__doc__).parse_args()  # a question starts nothing
    began = time.monotonic()
    print("the next line comes after about 20 s", flush=True)
    code = main(["run", STUDY])
    tables = find_tables(Path(RUNS), STUDY)
    if not tables:
        return code
    finished = rows_of(state.record for state in states(read_table(tables[0])) if state.status == "finished")
    if finished:
        path = Path(RUNS) / STUDY / "results.csv"
        write_csv(finished, path)
        print(f"\n{markdown(finished)}\n")
        print(f"published: DAT-T on ImageNet-1K, one run; here: {finished[0]['model']} on {finished[0]['data']} scenes")
        print(f"rows:      {path}")
        print(f"each run:  {path.parent}/<variant>/seed<n>-<identity>/: record, curves, predictions, weights, log, W&B")
    print(f"took {duration(time.monotonic() - began)}")
    return code


if __name__ == "__main__":
    sys.exit(demo())
