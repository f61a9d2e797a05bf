"""The recorded study says what its rows say."""

import importlib.util
import tarfile

from src.config import load_config
from src.looking import page
from src.looking.figure import course
from src.looking.rows import read
from src.readme import ROOT
from src.runs.identity import identity
from src.studies.definition import read_study

FOLDER = ROOT / "experiments" / "where_it_looks"


def test_its_figure_is_that_of_its_rows(tmp_path):
    from src.reports.figures.save import save

    for path in save(course(read(FOLDER)), tmp_path, page.FIGURE):
        if path.suffix == ".svg":
            assert path.read_text() == (FOLDER / page.FIGURES / path.name).read_text()


def test_its_runs_are_those_of_the_study():
    study, kept = read_study("where_it_looks"), read(FOLDER)
    assert {row["name"] for row in kept.rows} == {row.name for row in study.rows}
    for row in study.rows:
        cfg = load_config(f"experiment={row.experiment}", *study.overrides)
        assert {r["epoch"] for r in kept.rows if r["name"] == row.name} == set(range(cfg["recipe"]["epochs"] + 1))
    assert kept.about["seeds"][kept.subject] == list(study.seeds)


def test_its_rows_are_of_the_packed_runs():
    with tarfile.open(FOLDER / "runs.tar.gz") as packed:
        folders = {tuple(name.split("/")[1:3]) for name in packed.getnames() if name.endswith("/record.json")}
    rows = {(row["name"], f"seed{row['seed']:.0f}-{row['identity']}") for row in read(FOLDER).rows}
    assert rows == folders


def test_what_is_watched_does_not_change_which_run_it_is():
    study = read_study("where_it_looks")
    assert identity(load_config(*study.overrides)) == identity(load_config())


def test_the_cost_of_pictures_is_that_of_its_measurements():
    spec = importlib.util.spec_from_file_location("cost_of_pictures", FOLDER / "cost.py")
    cost = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cost)
    text = (FOLDER / "README.md").read_text()
    assert cost.renewed(text) == text and cost.line() in text
