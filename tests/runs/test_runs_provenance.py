import json
import os
import subprocess

import pytest

from src.runs import provenance as module
from src.runs.provenance import provenance


@pytest.fixture
def checkout(tmp_path):
    def git(*args):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, *args], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("x = 1\n")
    git("add", ".")
    git("commit", "-m", "first")
    return tmp_path


def test_a_clean_checkout(checkout):
    found = provenance(checkout)
    assert len(found["git"]["commit"]) == 40
    assert found["git"]["dirty"] is False and found["diff"] == "" and found["git"]["untracked"] == []


def test_a_changed_checkout(checkout):
    (checkout / "src" / "a.py").write_text("x = 2\n")
    (checkout / "src" / "new.py").write_text("SECRET")
    (checkout / "notes.txt").write_text("private")
    found = provenance(checkout)
    assert found["git"]["dirty"] is True and found["git"]["untracked"] == ["src/new.py"]
    assert "+x = 2" in found["diff"] and "SECRET" not in found["diff"]
    assert "notes" not in json.dumps(found)


def test_reports_that_changed_are_no_other_code(checkout):
    results = checkout / "experiments" / "table" / "results.csv"
    results.parent.mkdir(parents=True)
    results.write_text("1\n")
    subprocess.run(["git", "add", "."], cwd=checkout, check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *identity, "commit", "-m", "results"], cwd=checkout, check=True, capture_output=True)
    results.write_text("2\n")
    found = provenance(checkout)
    assert found["git"]["dirty"] is False and found["diff"] == ""


def test_the_diff_has_a_limit(checkout, monkeypatch):
    monkeypatch.setattr(module, "_DIFF_LIMIT", 1000)
    (checkout / "src" / "a.py").write_text("y\n" * 10_000)
    diff = provenance(checkout)["diff"]
    assert len(diff) < 1100 and "[cut:" in diff


def test_outside_a_checkout_and_below_a_foreign_one(checkout, tmp_path_factory):
    unknown = {"commit": None, "dirty": None, "untracked": []}
    assert provenance(tmp_path_factory.mktemp("nowhere"))["git"] == unknown
    assert provenance(checkout / "src")["git"] == unknown


def test_without_any_tool(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = provenance(tmp_path)
    assert found["git"]["commit"] is None and found["hardware"]["gpus"] == []


def test_reads_what_the_driver_says(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 570.1, 143771'\necho 'NVIDIA A100, 570.1, [N/A]'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert provenance(tmp_path)["hardware"]["gpus"] == [
        {"name": "NVIDIA H200", "driver": "570.1", "memory_gib": 140.4},
        {"name": "NVIDIA A100", "driver": "570.1", "memory_gib": None},
    ]


def test_says_with_what_and_on_what_but_not_who(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    found = provenance()
    assert found["versions"]["torch"] and found["versions"]["python"]
    assert found["hardware"]["cores"] >= 1 and found["hardware"]["memory_gib"] > 0
    text = json.dumps({k: v for k, v in found.items() if k != "diff"})
    assert "k" * 40 not in text and os.uname().nodename not in found["hardware"].values()
