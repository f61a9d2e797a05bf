"""What users add stands beside what is there, and never in its place."""

import pytest
from hydra.errors import HydraException

from src.config import build_model, load_config
from src.own_configs import VARIABLE
from src.runs.code import code_files
from src.studies.definition import read_study
from src.studies.freeze import freeze

PARTS = """
from src.models.offset import ZeroOffset

class Still(ZeroOffset):
    pass
"""
EXPERIMENT = """
# @package _global_
defaults:
  - override /offset: still
name: own_still
axes: [offset]
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    conf = tmp_path / "own" / "conf"
    for group in ("offset", "experiment"):
        (conf / group).mkdir(parents=True)
    (conf / "offset" / "still.yaml").write_text("_target_: own_parts.Still\n_partial_: true\n")
    (conf / "experiment" / "own_still.yaml").write_text(EXPERIMENT)
    (tmp_path / "own_parts.py").write_text(PARTS)
    monkeypatch.setenv(VARIABLE, str(conf))
    monkeypatch.syspath_prepend(tmp_path)
    return conf


def test_a_part_of_ones_own_is_a_choice(own):
    cfg = load_config("offset=still")
    assert (
        type(next(part for name, part in build_model(cfg).named_modules() if name.endswith(".offset"))).__name__
        == "Still"
    )
    assert "own_parts.py" in code_files(cfg), "a change of it is another run"


def test_an_experiment_of_ones_own_can_be_a_row_of_a_study(own, tmp_path):
    (tmp_path / "mine").mkdir()
    study = tmp_path / "mine" / "study.yaml"
    study.write_text("question: Does it matter?\nseeds: 2\nrows: {baseline: , own_still: }\n")
    table = freeze(read_study(str(study)))
    assert [str(job) for job in table.jobs][:2] == ["baseline/seed0", "own_still/seed0"]
    assert table.variants["own_still"].config["axes"] == ["offset"]


def test_the_folder_is_found_where_a_command_is_started(own, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(HydraException):
        load_config("offset=still")
    monkeypatch.chdir(own.parents[1])
    assert load_config("offset=still")["offset"]["_target_"] == "own_parts.Still"


def test_what_the_project_has_comes_first(own):
    before = load_config("offset=zero")
    (own / "offset" / "zero.yaml").write_text("_target_: own_parts.Still\n_partial_: true\n")
    assert load_config("offset=zero") == before


def test_without_a_folder_nothing_is_said(tmp_path, monkeypatch, recwarn):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nothing"))
    assert load_config()["name"] == "baseline"
    assert not [warned for warned in recwarn if "own" in str(warned.message)]
