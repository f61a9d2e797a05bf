"""One job of a frozen study, in this process: what it refuses, and what its record then says."""

import shutil
from pathlib import Path

import pytest
from study_tools import TINY, faulty, write_study

from src import job as command
from src import training
from src.runs.exit_codes import DIVERGED, REFUSED
from src.runs.record import read_record
from src.runs.session import Diverged
from src.studies.definition import read_study
from src.studies.freeze import freeze


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    (tmp_path / "faults" / "images").mkdir(parents=True)
    overrides = (*TINY, *faulty(tmp_path / "faults"), "+data.fault=vanish")
    study = write_study(tmp_path / "s", {"baseline": None}, overrides=overrides)
    frozen = freeze(read_study(str(study)), [f"runs={tmp_path / 'runs'}"])
    frozen.write()
    return frozen


def run(table):
    """The exit code, and the record."""
    (job,) = table.jobs
    code = 0
    try:
        command.main(str(table.path), job.name, str(job.seed))
    except SystemExit as exit:
        code = exit.code
    return code, read_record(table.folder(job))


def test_data_that_vanish_before_a_job_begins(table, tmp_path):
    """The record says so; the job goes on when they are back."""
    shutil.rmtree(tmp_path / "faults" / "images")
    code, record = run(table)
    assert (code, record["status"], len(record["attempts"])) == (REFUSED, "failed", 1)
    assert record["error"]["type"] == "DataError" and "no images" in record["error"]["message"]
    (tmp_path / "faults" / "images").mkdir()
    code, record = run(table)
    assert (code, record["status"]) == (0, "finished")
    assert [attempt["status"] for attempt in record["attempts"]] == ["failed", "finished"]
    assert run(table) == (0, record), "finished is finished"


def test_data_that_change_before_a_job_begins(table, monkeypatch):
    """Another job than the one that was frozen: refused, whatever its result would be."""
    import study_faults

    monkeypatch.setattr(study_faults.FaultyDigits, "fingerprint", lambda self: "f" * 10)
    code, record = run(table)
    assert (code, record["status"]) == (REFUSED, "failed")
    assert "data=digits has changed" in record["error"]["message"]


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [(ValueError("bad batch"), REFUSED, "failed"), (Diverged("not finite"), DIVERGED, "diverged")],
)
def test_an_error_in_training_is_one_attempt(table, monkeypatch, error, code, status):
    def fail(*_):
        raise error

    monkeypatch.setattr(training.ImageClassifier, "training_step", fail)
    found, record = run(table)
    assert (found, record["status"], len(record["attempts"])) == (code, status, 1)
    assert record["error"]["message"] == str(error)
