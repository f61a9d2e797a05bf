"""Where a network's points lie on a few images.

A run leaves them behind in `points.npz`. For runs that were recorded without, and still have their weights:

python -m src.points runs/table6_geometry
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from src.commands import command
from src.reports.points import POINTS, read_points, write_points
from src.runs.record import find_records


@command(interrupted="what is written stays, and the same command goes on with the other runs")
def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the file of each run that has none, and a line for it."""
    parser = argparse.ArgumentParser(
        prog="python -m src.points", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="a run's folder, or one with many")
    options = parser.parse_args(arguments)
    records = [record for record in find_records(options.runs) if record["status"] == "finished"]
    if not records:
        raise ValueError(f"no finished run below {options.runs}")
    from src.looking.points import of_run  # torch takes seconds, which --help and an empty folder needn't

    for record in records:
        folder = Path(record["folder"])
        if read_points(folder) is not None:
            continue
        try:
            points = of_run(record)
        except OSError as error:
            print(f"{folder}: {error}", file=sys.stderr)
            continue
        if points is None:
            print(f"{folder}: no deformable block")
        else:
            write_points(folder / POINTS, points)
            print(f"{folder}: {', '.join(points.blocks)}")


if __name__ == "__main__":
    sys.exit(main())
