"""`python -m src.report`: from runs to files, with a line for whoever asks for what isn't there."""

import json

import pytest
from made_up import make_study

from src.report import main
from src.studies.archive import unpack
from src.studies.definition import EXPERIMENTS

SCORES = {"baseline": 0.7, "no_offset": 0.5, "no_bias": 0.7}
RECORDED = sorted(path.parent.name for path in EXPERIMENTS.glob("*/summary.json"))


@pytest.mark.parametrize("study", RECORDED)
def test_recorded_reports_are_those_of_the_recorded_runs(study, tmp_path, capsys):
    unpack(EXPERIMENTS / study / "runs.tar.gz", tmp_path / "runs")
    assert main([study, f"runs={tmp_path / 'runs'}", "--out", str(tmp_path / study)]) == 0, capsys.readouterr().err
    for name in ("results.csv", "summary.json", "report.md", "report.tex"):
        assert (tmp_path / study / name).read_text() == (EXPERIMENTS / study / name).read_text(), name
    drawn = {path.name for path in (tmp_path / study / "figures").iterdir()}
    assert drawn == {path.name for path in (EXPERIMENTS / study / "figures").iterdir()}


@pytest.mark.parametrize(("study", "seeds"), [("table6_geometry", 6), ("table7_stages", 6), ("range_factor", 3)])
def test_recorded_studies_have_their_seeds(study, seeds):
    assert study in RECORDED
    summary = json.loads((EXPERIMENTS / study / "summary.json").read_text())
    at = summary["header"].index("seeds")
    assert all(int(row[at]) >= seeds for row in summary["rows"])


def test_the_answer_is_printed_and_the_files_are_there(tmp_path, capsys):
    make_study(tmp_path / "runs", SCORES, seeds=range(8))
    assert main(["made_up", f"runs={tmp_path / 'runs'}", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("With 8 seeds, no_offset") and "report.html" in said
    assert not (tmp_path / "index.html").exists(), "a folder of one's own isn't the folder of all studies"


def test_a_study_of_ones_own_has_its_report_beside_it(tmp_path, capsys):
    make_study(tmp_path / "runs", SCORES, study="mine")
    (tmp_path / "studies" / "mine").mkdir(parents=True)
    file = tmp_path / "studies" / "mine" / "study.yaml"
    file.write_text("question: Why?\nseeds: 3\nrows: {baseline: null, no_offset: null, no_bias: null}\n")
    assert main([str(file.parent), f"runs={tmp_path / 'runs'}"]) == 0
    assert file.with_name("report.html").exists()
    assert "mine/report.html" in (tmp_path / "studies" / "index.html").read_text()


def test_another_baseline(tmp_path, capsys):
    make_study(tmp_path / "runs", SCORES)
    options = ["made_up", f"runs={tmp_path / 'runs'}", "--out", str(tmp_path / "out"), "--baseline"]
    assert main([*options, "no_bias"]) == 0
    assert "| baseline | 3 |" in (tmp_path / "out" / "report.md").read_text()
    assert main([*options, "typo"]) == 2
    assert "no variant 'typo'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no_such_study"], "no study 'no_such_study'"),
        (["groups", "runs=nowhere"], "has not been run below nowhere"),
        (["made_up", "--margin", "0"], "margin 0.0 must be more than 0"),
    ],
)
def test_what_cant_be_done_is_said_in_a_line(tmp_path, monkeypatch, capsys, arguments, said):
    make_study(tmp_path / "runs", SCORES)
    if "runs=nowhere" not in arguments:
        arguments = [*arguments, f"runs={tmp_path / 'runs'}", "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error
    assert not (tmp_path / "out").exists(), "nothing is begun"


def test_a_study_is_found_by_what_it_was_run_with(tmp_path, capsys):
    make_study(tmp_path / "runs", SCORES, study="groups", question="Why?")
    runs = f"runs={tmp_path / 'runs'}"
    assert main(["groups", runs, "recipe.epochs=7", "--out", str(tmp_path / "out")]) == 2
    assert "has not been run with these overrides" in capsys.readouterr().err
    assert main(["groups", runs, "seeds=3", "--out", str(tmp_path / "out")]) == 0
