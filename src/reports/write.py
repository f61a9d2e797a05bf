"""The files of a report, each whole or as it was before."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.reports import figures as drawing
from src.reports.comparison import Comparison, compare_all
from src.reports.documents import TITLES, latex, markdown
from src.reports.page.document import document
from src.reports.page.render import render, render_index
from src.reports.report import Report
from src.reports.tables import run_csv
from src.runs.record import write_atomically
from src.studies.definition import FILE, StudyError, read_study

log = logging.getLogger(__name__)

SUMMARY, PAGE = "summary.json", "report.html"
FIGURES = "figures"


def write_report(report: Report, folder: Path) -> list[Path]:
    """Writes results.csv, report.md, report.tex, report.html, summary.json and figures/; returns their paths.

    The same runs give the same bytes.

    Raises:
        OSError: the disk is full, or `folder` can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = drawing.draw(report.results, report.comparisons, tau=report.agreement.tau, margin=report.margin)
    written = []
    for name, figure in drawn.items():
        written += drawing.save(figure, folder / FIGURES, name)
    for old in set((folder / FIGURES).glob("*")) - set(written):
        old.unlink()  # of figures that no longer make sense
    said = {name: drawing.alt(figure) for name, figure in drawn.items()}
    inlined = [
        (name, TITLES[name], drawing.inline(figure), said[name], "results.csv") for name, figure in drawn.items()
    ]
    texts = {
        "results.csv": run_csv(report.results),
        "report.md": markdown(report, said),
        "report.tex": latex(report),
        PAGE: render(page_document(report), inlined),
        SUMMARY: json.dumps(report.summary(), indent=1, ensure_ascii=False) + "\n",
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [*(folder / name for name in texts), *written]


def page_document(report: Report) -> dict[str, Any]:
    """The data behind report.html."""
    return document(report.results, compare_all(report.results, margin=report.margin), texts=report.texts)


def live_document(read: Callable[[], Report]) -> Callable[[], dict[str, Any]]:
    """`page_document` of a study at work: its runs are compared anew only when another one has finished."""
    finished: tuple[Path, ...] | None = None
    comparisons: Mapping[str, Sequence[Comparison]] = {}

    def document_now() -> dict[str, Any]:
        nonlocal finished, comparisons
        report = read()
        now = tuple(state.folder for state in report.results.states if state.status == "finished")
        if now != finished:
            finished, comparisons = now, compare_all(report.results, margin=report.margin)
        return document(report.results, comparisons, texts=report.texts)

    return document_now


def write_index(experiments: Path) -> Path:
    """`index.html` of all studies in a folder, those without a report included."""
    studies = []
    for file in sorted(experiments.glob(f"*/{FILE}")):
        try:
            studies.append(_listed(file.parent))
        except (StudyError, OSError, ValueError) as error:
            log.warning("%s isn't listed: %s", file.parent.name, error)
    path = experiments / "index.html"
    write_atomically(path, render_index(studies))
    return path


def _listed(folder: Path) -> Mapping[str, Any]:
    summary = folder / SUMMARY
    if summary.exists():
        told = json.loads(summary.read_text(encoding="utf-8"))
        return {**told, "report": f"{folder.name}/{PAGE}"}
    study = read_study(str(folder))
    return {
        "name": folder.name,
        "question": study.question,
        "answer": None,
        "variants": len(study.rows),
        "seeds": len(study.seeds),
        "finished": 0,
        "total": len(study.rows) * len(study.seeds),
        "data": "",
        "model": "",
        "hardware": "",
        "report": None,
    }
