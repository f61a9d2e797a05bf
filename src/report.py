"""From a study's runs to tables, figures, a page and a sentence.

python -m src.report table6_geometry             # writes experiments/table6_geometry/report.html and more
python -m src.report table6_geometry --watch     # follows it in a browser while it runs
python -m src.report table6_geometry recipe.epochs=5 runs=/disk/runs --baseline ablate_no_bias
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.commands import command
from src.reports.results import Results, results_below, results_of
from src.statistics.verdict import MARGIN
from src.studies.definition import EXPERIMENTS, FILE, StudyError, read_study
from src.studies.latest import latest_table
from src.studies.table import find_tables
from src.study import RUNS

if TYPE_CHECKING:  # statistics and plotting take seconds to import, which a refusal needn't
    from src.reports.report import Report

PORT = 8321
PROJECT = "datlab"  # in W&B, of runs that weren't logged there


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Writes what is asked for, or serves it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    _report(_parser().parse_intermixed_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "study", help="a folder of experiments/, the path of a study.yaml, or a folder name below runs/"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="those that the study was run with; runs=FOLDER"
    )
    parser.add_argument("--baseline", metavar="ROW", help="compare with this row (baseline, if there is one)")
    parser.add_argument(
        "--margin", type=float, default=MARGIN, metavar="POINTS", help=f"smaller is no difference ({MARGIN:g})"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="beside the study's file, if not said")
    parser.add_argument(
        "--watch", type=int, nargs="?", const=PORT, metavar="PORT", help=f"serve it on this machine, at work ({PORT})"
    )
    parser.add_argument("--wandb", action="store_true", help="also a report and a workspace view in W&B")
    return parser


def _report(options: argparse.Namespace) -> None:
    from src.reports.report import Report
    from src.reports.write import live_document, write_index, write_report

    def read() -> Report:
        found = _results(options.study, options.overrides)
        return Report(found.with_baseline(options.baseline) if options.baseline else found, options.margin)

    report = read()
    if options.watch is not None:
        from src.reports.page.watch import serve

        serve(live_document(read), options.watch)
        return
    study = report.results.table.study
    folder = options.out or _beside(options.study, study)
    print("\n".join(filter(None, [report.answer, report.missing])), flush=True)
    written = write_report(report, folder)
    print(f"{folder / 'report.html'} and {len(written) - 1} more files there")
    if options.out is None:
        print(f"{write_index(folder.parent)} lists all studies")
    if options.wandb:
        print(_to_wandb(report, written, folder))


def _beside(given: str, study: str) -> Path:
    """Where the study's file is."""
    path = Path(given)
    if path.is_file():
        return path.parent
    return path if (path / FILE).is_file() else EXPERIMENTS / study


def _to_wandb(report: "Report", written: Sequence[Path], folder: Path) -> str:
    """The study's summary run, and its views in W&B; what became of them, in a line."""
    from src.reports.wandb_summary import log_summary
    from src.reports.wandb_views import build_views

    results = report.results
    logger = results.config(results.baseline)["logger"]
    place = {"project": logger.get("project", PROJECT), "entity": logger.get("entity")}
    files = [path for path in written if path.suffix != ".svg"]
    log_summary(results, report.comparisons, files, **place, mode=logger.get("mode", "auto"))
    figures = [path for path in files if path.suffix == ".png"]
    return build_views(results, report.comparisons, figures, answer=report.answer, **place, folder=folder / "wandb")


def _results(study: str, overrides: Sequence[str]) -> Results:
    """Of the study's frozen table; of what lies below runs/<study> if it has none."""
    runs = Path(dict(override.partition("=")[::2] for override in overrides).get("runs", RUNS))
    try:
        definition = read_study(study)
    except StudyError:
        if Path(study).name != study or not (runs / study).is_dir():  # a name, not a path
            raise
        return results_below(runs / study)
    if find_tables(runs, definition.name) or not (runs / definition.name).is_dir():
        return results_of(latest_table(definition.name, overrides, RUNS))
    order = [row.name for row in definition.rows]
    return results_below(runs / definition.name, definition.question, order)


if __name__ == "__main__":
    sys.exit(main())
