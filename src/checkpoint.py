"""Weights as files: published checkpoints in, our own runs out, for `model.weights=FILE`.

python -m src.checkpoint import dat_tiny.pth --model dat_tiny   # a file of the published code, or of its detectors
python -m src.checkpoint export runs/default/baseline/seed0-...  # the best epoch of a run
python -m src.checkpoint show dat_tiny.safetensors
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from src.commands import command


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Reads or writes a file, and says what it is."""
    options = _parser().parse_args(arguments)
    # Here: torch takes seconds, which --help and a wrong word needn't.
    from src.models.weights import describe
    from src.weight_files import export_run, import_published, lines, next_command

    if options.act == "show":
        print(*lines(describe(options.file)), sep="\n")
        return
    if options.act == "import":
        out = options.out or Path(f"{options.file.stem}.safetensors")
        about = import_published(
            options.file, model=options.model, out=out, classes=options.classes, image_size=options.image_size
        )
    else:
        run = options.run.resolve()
        out = options.out or Path(f"{run.parent.name}-{run.name}.safetensors")
        about = export_run(options.run, out=out)
    print(*lines(about), f"written to      {out}", f"next            {next_command(about, out)}", sep="\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.checkpoint", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    acts = parser.add_subparsers(dest="act", required=True, metavar="COMMAND")
    importing = acts.add_parser("import", help="a published checkpoint, or a detector's with DAT as its backbone")
    importing.add_argument("file", type=Path)
    importing.add_argument("--model", required=True, help="a name in conf/model, such as dat_tiny")
    importing.add_argument("--classes", type=_at_least_one, help="of the head, if not the file's own")
    importing.add_argument("--image-size", type=_at_least_one, help="that bias tables are for, if not the model's own")
    exporting = acts.add_parser("export", help="the best epoch of a run")
    exporting.add_argument("run", type=Path, help="its folder")
    showing = acts.add_parser("show", help="what a file of weights is")
    showing.add_argument("file", type=Path)
    for made in (importing, exporting):
        made.add_argument("-o", dest="out", type=Path, help="where to; a .safetensors file in this folder if not said")
    return parser


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
