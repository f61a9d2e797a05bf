"""report.md, report.tex and results.csv say what the runs say, whatever they are called."""

import csv
import io
import json
import re
import shutil
import subprocess

import pytest
from made_up import make_study

from src.reports.documents import latex, markdown
from src.reports.report import Report
from src.reports.results import results_of
from src.reports.text import Table, count, interval, listed, probability, signed, tex
from src.reports.write import write_index, write_report
from src.statistics.verdict import MARGIN

SCORES = {"baseline": 0.7, "no_offset": 0.5, "no_bias": 0.7}


def report_of(table):
    return Report(results_of(table), MARGIN)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return report_of(make_study(tmp_path_factory.mktemp("runs"), SCORES, seeds=range(8)))


def cells(markdown_table):
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in markdown_table.splitlines()]


def test_the_answer_follows_the_verdicts(report):
    worse = next(c for c in report.comparisons if c.variant == "no_offset")
    assert worse.verdict.word == "worse"
    assert report.answer.startswith(
        f"With 8 seeds, no_offset ({signed(worse.paired.mean)} points) is worse than baseline"
    )
    assert "no_bias" in report.answer


def test_the_table_has_the_means(report):
    header, _, *rows = cells(report.accuracy.markdown())
    table = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert list(table) == list(SCORES)
    for name, row in table.items():
        scores = report.results.scores(name).values()
        assert row["top-1, %"].startswith(f"{sum(scores) / 8:.1f} ±")
    assert table["no_offset"]["verdict"] == "worse"
    assert table["no_offset"]["published difference"] == signed(81.7 - 82.0)


def test_no_name_is_in_bold(report):
    for line in markdown(report, {}).splitlines():
        assert "**" not in line or line.startswith(("**Question", "**Answer", "**Command"))


def test_an_incomplete_study_says_what_is_missing(tmp_path):
    unfinished = {("no_bias", 2): "failed", ("no_offset", 2): "waiting"}
    report = report_of(make_study(tmp_path, SCORES, unfinished=unfinished))
    assert report.missing == (
        "Incomplete: 7 of 9 runs are finished; 1 waiting (no_offset/seed2), 1 failed (no_bias/seed2)."
    )
    assert report.missing in markdown(report, {})
    assert [row["status"] for row in csv_rows(report) if row["seed"] == "2"] == ["finished", "waiting", "failed"]


def csv_rows(report):
    from src.reports.tables import run_csv

    return list(csv.DictReader(io.StringIO(run_csv(report.results))))


@pytest.mark.parametrize("left", [0, 1])
def test_little_or_nothing_is_still_a_report(tmp_path, left):
    unfinished = {(name, seed): "waiting" for name in SCORES for seed in range(3) if (name, seed) >= ("baseline", left)}
    report = report_of(make_study(tmp_path / "runs", SCORES, unfinished=unfinished))
    written = write_report(report, tmp_path / "out")
    assert {"results.csv", "report.md", "report.tex", "report.html", "summary.json"} <= {path.name for path in written}
    assert report.answer.startswith("Nothing can be said yet")


def test_few_seeds_and_guessing_are_named_as_limits(tmp_path):
    limits = " ".join(report_of(make_study(tmp_path, {"baseline": 0.7, "no_offset": 0.1})).limits)
    assert "With 3 seeds and 1 comparisons no p below 0.25" in limits and "6 seeds could" in limits
    assert "no_offset is near the accuracy of guessing" in limits


def test_the_same_runs_give_the_same_bytes(tmp_path):
    table = make_study(tmp_path / "runs", SCORES, unfinished={("no_bias", 1): "failed"})
    contents = []
    for name in ("one", "two"):
        written = write_report(report_of(table), tmp_path / name)
        contents.append({path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in written})
    assert contents[0] == contents[1]
    assert not any(str(tmp_path).encode() in content for content in contents[0].values()), "paths of this machine"


def test_figures_that_no_longer_make_sense_go(tmp_path):
    (tmp_path / "out" / "figures").mkdir(parents=True)
    (tmp_path / "out" / "figures" / "old.svg").touch()
    written = write_report(report_of(make_study(tmp_path / "runs", SCORES)), tmp_path / "out")
    assert set((tmp_path / "out" / "figures").iterdir()) == {p for p in written if p.parent.name == "figures"}


def test_the_index_lists_studies_with_and_without_a_report(tmp_path):
    for name in ("made_up", "not_yet"):
        (tmp_path / name).mkdir()
        study = {"question": f"Is {name} <b>?", "seeds": 3, "rows": {"baseline": None}}
        (tmp_path / name / "study.yaml").write_text(json.dumps(study))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "study.yaml").write_text("[")
    report = report_of(make_study(tmp_path / "runs", SCORES))
    write_report(report, tmp_path / "made_up")
    page = write_index(tmp_path).read_text()
    assert 'href="made_up/report.html"' in page
    assert "Is not_yet &lt;b&gt;?" in page and "Is not_yet <b>" not in page
    assert report.answer.split("(")[0].strip()[:30] in page


HOSTILE = r"a|b_<script>alert(1)</script>%$\end{table}&#~^{}"


def test_hostile_names_stay_in_their_cells():
    table = Table(["variant", "x"], [[HOSTILE, "1"], ["two\nlines", "2"]])
    assert [len(row) for row in cells(table.markdown())] == [2, 2, 2, 2]
    assert "<script" not in table.markdown()
    text = table.latex(HOSTILE, "tab:x")
    assert text.count(r"\end{table}") == 1
    assert "two lines" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex, for instance of texlive-latex-base")
def test_latex_compiles(report, tmp_path):
    head = "\\documentclass{article}\\usepackage[utf8]{inputenc}\\usepackage{booktabs}\\begin{document}\n"
    table = Table(["variant", "x"], [[HOSTILE, "± ≤"]])
    body = latex(report) + table.latex(HOSTILE, "tab:hostile")
    (tmp_path / "report.tex").write_text(f"{head}{body}\n\\end{{document}}\n")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (signed(1.25), "+1.2"),
        (signed(-1.26), "\N{MINUS SIGN}1.3"),
        (signed(-0.04), "0.0"),
        (interval((-1.0, 2.0)), "\N{MINUS SIGN}1.0 to +2.0"),
        (interval(None), ""),
        (probability(0.0004), "< 0.001"),
        (probability(0.0469), "0.047"),
        (probability(None), ""),
        (count(28_320_000), "28.32 M"),
        (count(577_160), "577 k"),
        (count(12), "12"),
        (listed(["a"]), "a"),
        (listed(["a", "b", "c"]), "a, b and c"),
        (tex("50 % of $x_1$"), r"50 \% of \$x\_1\$"),
    ],
)
def test_numbers_and_words(written, expected):
    assert written == expected
