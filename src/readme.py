"""What the READMEs quote of recorded runs: `python -m src.readme` writes it between its marks.

<!-- table: python -m src.readme ... --> ... <!-- end of table -->    the demo's, from experiments/demo/results.csv
<!-- report: STUDY ... --> ... <!-- end of report -->      a study's, from experiments/STUDY/summary.json
<!-- findings: STUDY ... --> ... <!-- end of findings -->    where its points go, from the rows in experiments/STUDY
<!-- cores: ... --> ... <!-- end of cores -->    a GPU's cores, from experiments/benchmarks/step/results.csv
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.benchmarks.measure import read_table
from src.benchmarks.step_page import cores
from src.looking import page as looking
from src.looking.answer import recorded
from src.looking.rows import read
from src.reports.text import Table
from src.table import hardware, markdown, read_csv

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "demo" / "results.csv"
TABLE = re.compile(r"(<!-- table: python -m src\.readme .*? -->\n).*?(<!-- end of table -->)", re.DOTALL)
CORES = re.compile(r"(<!-- cores: .*? -->\n).*?(<!-- end of cores -->)", re.DOTALL)
STEP = ROOT / "experiments" / "benchmarks" / "step" / "results.csv"
REPORT = re.compile(r"(<!-- report: (\w+).*? -->\n).*?(<!-- end of report -->)", re.DOTALL)

# Of the columns of a report, those of a page that has more to say.
FEW = ("variant", "seeds", "top-1, %", "difference", "95 %, t", "p, Holm", "verdict", "published difference")


def pages() -> list[Path]:
    """The pages with something between marks."""
    found = [ROOT / "README.md", *sorted(ROOT.glob("experiments/*/README.md"))]
    marks = (TABLE, REPORT, looking.MARKS)
    return [page for page in found if any(mark.search(page.read_text()) for mark in marks)]


def renewed(page: Path) -> str:
    """The text of `page` with what is recorded between its marks."""
    rows = read_csv(RESULTS)
    table = f"{markdown(rows)}\n\n{hardware(rows)}\n"
    text = TABLE.sub(lambda match: match[1] + table + match[2], page.read_text())
    text = CORES.sub(lambda match: match[1] + _cores() + match[2], text)
    text = REPORT.sub(lambda match: match[1] + _study(match[2], page.parent) + match[3], text)
    return looking.MARKS.sub(lambda match: match[1] + _findings(match[2], page.parent) + match[3], text)


def _cores() -> str:
    """What was recorded of the loader; nothing before it was."""
    rows = read_table(STEP) if STEP.is_file() else []
    return "".join(f"{cores(row)}\n" for row in rows if row["part"] == "loader")


def _study(name: str, seen_from: Path) -> str:
    folder = ROOT / "experiments" / name
    summary = json.loads((folder / "summary.json").read_text())
    at = Path(os.path.relpath(folder, seen_from)).as_posix()
    parts = _whole(summary) if folder == seen_from else _short(summary, at)
    picture = (
        f'<picture>\n<source media="(prefers-color-scheme: dark)" srcset="{at}/figures/forest-dark.svg">\n'
        f'<img src="{at}/figures/forest.svg" alt="Differences to the baseline with 95 % intervals">\n</picture>'
    )
    parts.insert(-1, picture)
    return "\n\n".join(part for part in parts if part) + "\n"


def _findings(name: str, seen_from: Path) -> str:
    folder = ROOT / "experiments" / name
    kept = read(folder)
    if folder == seen_from:
        return looking.whole(kept)
    at = Path(os.path.relpath(folder, seen_from)).as_posix()
    return f"{looking.short(kept, at)}\n\n[{name}]({at}/README.md): {recorded(kept)}\n"


def _whole(summary: Mapping[str, Any]) -> list[str]:
    """In the study's own folder."""
    return [
        f"**Question.** {summary['question']}",
        f"**Answer.** {summary['answer']}",
        summary["missing"],
        summary["order"],
        f"**Command.** `{summary['command']}`, then `python -m src.report {summary['name']}`.",
        Table(summary["header"], summary["rows"]).markdown(),
        "**What it can't tell.**\n\n" + "\n".join(f"- {sentence}" for sentence in summary["limits"]),
    ]


def _short(summary: Mapping[str, Any], at: str) -> list[str]:
    """On the project's page."""
    columns = [number for number, title in enumerate(summary["header"]) if title in FEW]
    rows = [[row[number] for number in columns] for row in summary["rows"]]
    of = f"[{summary['name']}]({at}/README.md), {summary['finished']} runs of {summary['model']} on {summary['data']}"
    return [
        f"**{summary['question']}** {summary['answer']} {summary['missing']}".strip(),
        Table([summary["header"][number] for number in columns], rows).markdown(),
        f"{of}, {summary['hardware']}.",
    ]


if __name__ == "__main__":
    for path in pages():
        path.write_text(renewed(path))
