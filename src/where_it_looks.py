"""Do points go to objects? Measured on runs, and told in a page.

python -m src.where_it_looks measure runs/where_it_looks -o experiments/where_it_looks
python -m src.where_it_looks measure runs/my_study -o found --masks my_photos    # my_photos/images, my_photos/masks
python -m src.where_it_looks report experiments/where_it_looks                   # from the rows alone
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.commands import command
from src.runs.record import find_records

log = logging.getLogger(__name__)

COUNT = 500  # images: those of a seed differ by less than seeds do


@command(interrupted="what was measured is kept, and the same command measures the rest")
def main(arguments: Sequence[str] | None = None) -> None:
    """Does what is asked for."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _parser().parse_args(arguments)
    options.act(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.where_it_looks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    made = commands.add_parser("measure", help="runs that still have their weights; writes rows, page and figure")
    made.add_argument("runs", type=Path, help="a run's folder, or one with many, such as a study's")
    made.add_argument("-o", "--out", type=Path, required=True, help="folder of what is found")
    made.add_argument("--images", type=int, default=COUNT, metavar="N", help=f"the first N; {COUNT} by default")
    made.add_argument("--split", choices=("val", "test"), default="test", help="of the runs' data")
    made.add_argument(
        "--masks", type=Path, metavar="FOLDER", help="with images/ and masks/, in place of the runs' data"
    )
    made.add_argument("--anew", action="store_true", help="also what was measured before")
    made.set_defaults(act=_measure)

    made = commands.add_parser("report", help="page and figure from the rows of `measure`")
    made.add_argument("folder", type=Path)
    made.set_defaults(act=lambda options: _report(options.folder))
    return parser


def _measure(options: argparse.Namespace) -> None:
    if options.images < 2:
        raise ValueError(f"--images {options.images}: give 2 or more, since each is compared with the others")
    records = [record for record in find_records(options.runs) if record["status"] == "finished"]
    if not records:
        raise ValueError(f"no finished run below {options.runs}; python -m src.study run where_it_looks makes some")
    _refuse_unlike(records)

    from src.config import build  # torch, which `report` doesn't need
    from src.looking import rows
    from src.looking.masks import masked_images
    from src.looking.runs import Images, measured
    from src.models.looking import CannotLook

    data = build(records[0]["config"]["data"])
    images = masked_images(data, split=options.split, count=options.images, folder=options.masks)
    name = data.name if options.masks is None else options.masks.resolve().name
    about = Images(name, "" if options.masks else options.split, len(images), images.digest())
    found, of = [], []
    for number, record in enumerate(records, start=1):
        log.info("%d/%d %s", number, len(records), record["folder"])
        try:
            found.append(measured(record, images, about, anew=options.anew))
            of.append(record)
        except CannotLook as error:
            log.info("left out: %s", error)
    if not found:
        raise ValueError(f"no run below {options.runs} has a deformable block, so there are no points")
    rows.write(found, of, options.out)
    _report(options.out)


def _refuse_unlike(records: Sequence[dict[str, Any]]) -> None:
    """Runs are compared on the same images, so they must have been trained on the same data and size."""
    kinds = {
        (r["config"]["data"]["name"], r["data_fingerprint"], r["config"]["model"]["image_size"]): r["folder"]
        for r in records
    }
    if len(kinds) > 1:
        one, other = list(kinds.values())[:2]
        raise ValueError(f"{one} and {other} are of other data or image sizes; measure them apart")


def _report(folder: Path) -> None:
    from src.looking import page

    for path in page.write(folder):
        log.info("%s", path)


if __name__ == "__main__":
    sys.exit(main())
