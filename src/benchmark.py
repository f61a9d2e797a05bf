"""What is fast, and by how much, on this machine.

python -m src.benchmark op               # the operator, against the published formula and other attentions
python -m src.benchmark step --quick     # a training step of whole networks, against the published code's
python -m src.benchmark study            # studies: workers, packed runs
python -m src.benchmark startup          # imports, and from the command to the first step

Versions take turns in one process, and a ratio compares times of one round. Tables and figures are written to
experiments/benchmarks/TARGET/, row by row: what is interrupted keeps what it has.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from src.benchmarks.options import Options
from src.commands import command
from src.freed_memory import keep_freed_memory

OUTPUT = Path("experiments/benchmarks")
TARGETS = {
    "op": "deformable attention alone, over maps and batches",
    "step": "forward and backward of whole networks, and the loader that feeds them",
    "study": "studies with several workers, and runs packed onto one device",
    "startup": "imports by phase, and from the command to the first step",
}
RETURNED = "_memory_returned"  # after a target, for its folder
FEWEST_ROUNDS = 2  # a spread needs them


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is asked for."""
    options = _parser().parse_args(arguments)
    asked = Options(
        output=options.output or OUTPUT / (options.target + RETURNED * (options.freed_memory == "returned")),
        rounds=options.rounds,
        threads=options.threads,
        device=options.device,
        quick=options.quick,
        parts=tuple(options.only),
        freed_memory=options.freed_memory,
    )
    if options.freed_memory == "kept":
        keep_freed_memory()
    try:
        import_module(f"src.benchmarks.{options.target}").run(asked)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{asked.output} keeps the rows so far") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    said = "; ".join(f"{name}: {text}" for name, text in TARGETS.items())
    parser.add_argument("target", choices=list(TARGETS), help=said)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, for a first look")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PART", help="one part of the target; several are possible"
    )
    parser.add_argument("--rounds", type=_rounds, metavar="N", help="of each competition")
    parser.add_argument("--threads", type=_count, metavar="N", help="of torch on the CPU (as OMP_NUM_THREADS says)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--freed-memory",
        choices=["kept", "returned"],
        default="kept",
        help="by the process, as in runs, or to the system, as the C library does",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help=f"{OUTPUT}/TARGET, if not said, with {RETURNED} after it for returned memory",
    )
    return parser


def _count(text: str, least: int = 1) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {least}")
    return int(text)


def _rounds(text: str) -> int:
    return _count(text, FEWEST_ROUNDS)


if __name__ == "__main__":
    sys.exit(main())
