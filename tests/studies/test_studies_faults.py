"""What goes wrong in a night, done for real: no finished result is lost, no status is wrong, the next run completes."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from study_tools import TINY, by_state, faulty, processes, start, status, study, until, write_study

from src import training
from src.config import load_config
from src.data.base import DataError
from src.runs.record import find_records, read_progress, read_record
from src.studies.definition import read_study
from src.studies.freeze import freeze

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")


def folder_of(runs, name, seed=0):
    (folder,) = [path for path in (runs / "s" / name).glob(f"seed{seed}-*") if "-old-" not in path.name]
    return folder


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


RESULT = ("val/acc1", "test/acc1", "test/loss", "best_epoch", "test/acc1_per_class", "epochs")


def assert_as_if_nothing_had_happened(folder, tmp_path, *overrides):
    """Bitwise the weights and metrics of a run that nothing disturbed."""
    record = read_record(folder)
    own = [f"name={record['name']}", f"seed={record['seed']}", "study=whole", "progress=lines"]
    metrics = training.train(load_config(*TINY, *overrides, *own, f"runs={tmp_path / 'undisturbed'}"))
    (whole,) = find_records(tmp_path / "undisturbed" / "whole" / record["name"])
    assert whole["identity"] == record["identity"]
    assert {key: metrics[key] for key in RESULT} == {key: record["metrics"][key] for key in RESULT}
    one, other = weights(Path(whole["folder"])), weights(folder)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_jobs_that_die_in_their_own_ways(tmp_path, monkeypatch):
    """One diverges, one hangs, one runs out of memory, one is killed, one loses its images; the sixth is well."""
    root, runs = tmp_path / "faults", tmp_path / "runs"
    faults = ("diverge", "hang", "memory", "kill", "vanish")
    root.mkdir()
    (root / "images").mkdir()
    for fault in faults:
        (root / fault).touch()
    rows = {"well": ["+data.fault=none"], **{fault: [f"+data.fault={fault}"] for fault in faults}}
    folder = write_study(tmp_path / "s", rows, overrides=(*TINY, *faulty(root)))
    # Half a minute, since processes that start side by side on few cores are silent that long.
    limits = ("engine.silence=30", "engine.retries=1", "engine.workers=2")

    code, out = study("run", folder, f"runs={runs}", *limits)
    assert code == 1, out
    assert by_state(folder, runs) == {
        "well/0": "finished",
        "diverge/0": "diverged",
        "hang/0": "failed",
        "memory/0": "failed",
        "kill/0": "finished",  # by its second attempt
        "vanish/0": "failed",
    }, out
    errors = {job["name"]: job for job in status(folder, runs)["jobs"]}
    assert errors["diverge"]["attempts"] == 1 and "not finite" in errors["diverge"]["error"]
    assert errors["hang"]["attempts"] == 2 and errors["hang"]["error"].startswith("Hung: no step in 30 s")
    assert errors["memory"]["attempts"] == 2 and "alloc" in errors["memory"]["error"]
    assert errors["vanish"]["attempts"] == 2 and "7.png" in errors["vanish"]["error"]
    killed = read_record(folder_of(runs, "kill"))
    assert [attempt["status"] for attempt in killed["attempts"]] == ["failed", "finished"]
    assert killed["attempts"][1]["resume_from"] == "checkpoints/last.ckpt"
    well = (folder_of(runs, "well") / "record.json").read_bytes()

    code, out = study("logs", folder, f"runs={runs}")
    assert code == 0 and "=== memory/seed0: failed, 2 attempt(s)" in out and "Traceback" in out and "7.png" in out

    # Its images are gone: refused before the run goes on, and its record says why.
    shutil.rmtree(root / "images")
    (root / "hang").unlink()
    (root / "memory").unlink()
    (root / "vanish").unlink()
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with pytest.raises(DataError, match="no images"):  # nor can a study be frozen without its data
        freeze(read_study(str(folder)))

    (root / "images").mkdir()
    code, out = study("run", folder, f"runs={runs}", *limits)
    assert code == 1, out  # one has diverged; the same would happen again, so only `retry` does it again
    states = by_state(folder, runs)
    assert states.pop("diverge/0") == "diverged" and set(states.values()) == {"finished"}

    (root / "diverge").unlink()
    code, out = study("retry", folder, f"runs={runs}", *limits)
    assert code == 0, out
    assert set(by_state(folder, runs).values()) == {"finished"}
    assert (folder_of(runs, "well") / "record.json").read_bytes() == well, "a finished run was touched"

    for fault in ("kill", "hang"):
        assert_as_if_nothing_had_happened(folder_of(runs, fault), tmp_path, *faulty(root), f"+data.fault={fault}")


def test_a_runner_that_dies_in_all_ways(tmp_path):
    """Its jobs end, in order where they can, and the next one goes on with them."""
    root, runs = tmp_path / "faults", tmp_path / "runs"
    root.mkdir()
    (root / "slow").touch()
    rows = {"one": ["+data.fault=slow"], "two": ["+data.fault=slow", "offset=zero"]}
    folder = write_study(tmp_path / "s", rows, overrides=(*TINY, *faulty(root), "recipe.epochs=40"))
    ways = {
        "Ctrl-C": (signal.SIGINT, False),
        "its terminal is closed": (signal.SIGHUP, False),
        "it is killed": (signal.SIGKILL, False),
        "all are killed": (signal.SIGKILL, True),
    }
    for attempt, (way, (stop, jobs_too)) in enumerate(ways.items(), start=1):
        runner = start("run", folder, f"runs={runs}", "engine.workers=2")

        def both_train(attempt=attempt, runner=runner):
            if runner.poll() is not None:
                pytest.fail(runner.communicate()[0])
            records = list(find_records(runs))
            begun = [record for record in records if len(record["attempts"]) == attempt]
            found = [read_progress(record["folder"]) for record in begun]
            return len(found) == 2 and all(progress and progress["epoch"] >= 3 * attempt for progress in found)

        until(both_train, f"two jobs in epoch {3 * attempt}")
        jobs = processes(tmp_path)
        assert len(jobs) == 2
        runner.send_signal(stop)
        if jobs_too:
            for job in jobs:
                os.kill(job, signal.SIGKILL)
        out, _ = runner.communicate(timeout=60)
        until(lambda: not processes(tmp_path), "the jobs have ended", timeout=30)
        if stop != signal.SIGKILL:
            assert runner.returncode == 130 and "stopped" in out
        assert by_state(folder, runs) == {"one/0": "interrupted", "two/0": "interrupted"}, way
        for name in ("one", "two"):  # what was killed can't say when it ended
            assert (read_record(folder_of(runs, name))["attempts"][-1]["end"] is None) == jobs_too, way

    (root / "slow").unlink()
    code, out = study("run", folder, f"runs={runs}", "engine.workers=2")
    assert code == 0, out
    for name in ("one", "two"):
        record = read_record(folder_of(runs, name))
        assert [attempt["status"] for attempt in record["attempts"]] == [*["interrupted"] * 4, "finished"]
        assert [attempt["resume_from"] for attempt in record["attempts"]] == [None, *["checkpoints/last.ckpt"] * 4]


def test_what_is_on_disk_gets_damaged(tmp_path, monkeypatch):
    """A checkpoint cut short, one with flipped bytes, a record of a finished run, one of an unfinished run."""
    root, runs = tmp_path / "faults", tmp_path / "runs"
    root.mkdir()
    (root / "slow").touch()
    rows = {name: ["+data.fault=slow", f"recipe.weight_decay={i + 1}e-2"] for i, name in enumerate(("cut", "flipped"))}
    rows |= {"finished": ["+data.fault=none"], "unfinished": ["+data.fault=slow"]}
    folder = write_study(tmp_path / "s", rows, overrides=(*TINY, *faulty(root), "recipe.epochs=8"))
    runner = start("run", folder, f"runs={runs}", "engine.workers=4")

    def all_are_in_epoch_4():
        found = [read_progress(path) for path in runs.glob("s/*/seed*")]
        finished = [record for record in find_records(runs / "s") if record["status"] == "finished"]
        return finished and sum(bool(progress) and progress["epoch"] >= 5 for progress in found) == 4

    until(all_are_in_epoch_4, "three jobs in epoch 5, one finished")
    runner.send_signal(signal.SIGINT)
    runner.communicate(timeout=60)

    cut = folder_of(runs, "cut") / "checkpoints" / "last.ckpt"
    os.truncate(cut, cut.stat().st_size // 2)
    flipped = folder_of(runs, "flipped") / "checkpoints" / "last.ckpt"
    with flipped.open("r+b") as file:
        file.seek(flipped.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0xFF]))
    done = read_record(folder_of(runs, "finished"))
    text = (folder_of(runs, "finished") / "record.json").read_text()
    edited = text.replace(f'"test/loss": {json.dumps(done["metrics"]["test/loss"])}', '"test/loss": 0.0001')
    assert edited != text
    (folder_of(runs, "finished") / "record.json").write_text(edited)
    half = folder_of(runs, "unfinished") / "record.json"
    os.truncate(half, half.stat().st_size // 2)

    assert by_state(folder, runs)["finished/0"] == "finished"
    (root / "slow").unlink()
    code, out = study("run", folder, f"runs={runs}", "engine.workers=2")
    assert code == 0, out
    assert read_record(folder_of(runs, "finished"))["metrics"] == done["metrics"]
    for name in ("cut", "flipped"):
        record = read_record(folder_of(runs, name))
        assert record["attempts"][-1]["resume_from"] == "checkpoints/previous.ckpt"
        (output,) = (runs / "s").glob(f".tables/*/{name}-seed0.out")
        assert "last.ckpt is not a whole checkpoint" in output.read_text()
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    for name in ("cut", "flipped", "unfinished"):
        own = (*faulty(root), "recipe.epochs=8", *rows[name])
        assert_as_if_nothing_had_happened(folder_of(runs, name), tmp_path, *own)


@pytest.fixture
def small_disk(tmp_path):
    """90 MB that can be full, as a disk of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90m", "tmpfs", disk], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs the right to mount a small tmpfs (root): {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_disk_that_is_full_when_a_checkpoint_is_due(small_disk, tmp_path):
    root, runs = tmp_path / "faults", small_disk / "runs"
    root.mkdir()
    (root / "slow").touch()
    rows = {"first": ["+data.fault=none"], "second": ["+data.fault=slow"]}
    folder = write_study(tmp_path / "s", rows, overrides=(*TINY, *faulty(root), "recipe.epochs=12"))
    runner = start("run", folder, f"runs={runs}", "engine.workers=1", "engine.retries=0")

    def second_is_in_epoch_4():
        if runner.poll() is not None:
            pytest.fail(runner.communicate()[0])
        found = [read_progress(path) for path in runs.glob("s/second/seed*")]
        return any(progress and progress["epoch"] >= 4 for progress in found)

    until(second_is_in_epoch_4, "the second job in epoch 4")
    first = (folder_of(runs, "first") / "record.json").read_bytes()
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(100_000_000))
    out, _ = runner.communicate(timeout=120)
    assert runner.returncode == 1, out
    states = by_state(folder, runs)
    assert states["first/0"] == "finished" and states["second/0"] in ("failed", "interrupted"), out
    assert (folder_of(runs, "first") / "record.json").read_bytes() == first
    assert not list(folder_of(runs, "second").glob("checkpoints/.*")), "half-written files are left"

    (small_disk / "filler").unlink()
    (root / "slow").unlink()
    code, out = study("run", folder, f"runs={runs}", "engine.workers=1")
    assert code == 0, out
    assert read_record(folder_of(runs, "second"))["attempts"][-1]["resume_from"] == "checkpoints/last.ckpt"


def test_an_edit_in_mid_study_changes_no_job(tmp_path):
    """Of a yaml and of the code: what starts later still does what was frozen."""
    repository, runs, root = tmp_path / "repository", tmp_path / "runs", tmp_path / "faults"
    here = Path(__file__).parents[2]
    for part in ("src", "conf"):
        shutil.copytree(here / part, repository / part, ignore=shutil.ignore_patterns("__pycache__"))
    root.mkdir()
    (root / "slow").touch()
    rows = {"early": ["+data.fault=slow"], "late": ["+data.fault=none"]}
    folder = write_study(tmp_path / "s", rows, overrides=(*TINY, *faulty(root), "recipe.epochs=12"))
    at = {"cwd": repository, "env": {"PYTHONPATH": f"{repository}:{Path(__file__).parent}"}}
    runner = start("run", folder, f"runs={runs}", "engine.workers=1", **at)
    until(lambda: list(runs.glob("s/early/seed*/progress.json")), "the early job trains")
    assert not list(runs.glob("s/late/*"))

    model = repository / "conf" / "model" / "micro.yaml"
    model.write_text(model.read_text().replace("dim: 64", "dim: 32"))
    loss = repository / "src" / "classifier.py"
    loss.write_text(loss.read_text().replace("return loss\n", "return 0 * loss\n", 1))
    (root / "slow").unlink()
    out, _ = runner.communicate(timeout=240)
    assert runner.returncode == 0, out
    early, late = (read_record(folder_of(runs, name)) for name in ("early", "late"))
    assert late["config"]["model"] == early["config"]["model"] and late["params"] == early["params"]
    assert late["config"]["pinned"] == early["config"]["pinned"] and late["code"] == early["code"]
    assert late["config"]["model"]["stages"]["three"]["dim"] == 64
    # Now the study is another one: what was found stays, and doesn't count as its result.
    code, out = study("clean", folder, f"runs={runs}", **at)
    assert code == 0 and out.count("another config, or other data or code") == 2 and "nothing is removed" in out
    assert read_record(folder_of(runs, "early"))["status"] == "finished"


def test_two_runners_share_a_study_and_another_study_begins_in_the_same_second(tmp_path):
    runs = tmp_path / "runs"
    rows = {"baseline": None, "ablate_no_offset": None}
    one = write_study(tmp_path / "s", rows)
    other = write_study(tmp_path / "t", {"baseline": ["recipe.weight_decay=0.2"]}, seeds=1)
    began = time.time()
    runners = [start("run", folder, f"runs={runs}", "engine.workers=1") for folder in (one, one, other)]
    assert time.time() - began < 1
    for runner in runners:
        out, _ = runner.communicate(timeout=400)
        assert runner.returncode == 0, out
    records = list(find_records(runs))
    assert len(records) == 3 and {record["status"] for record in records} == {"finished"}
    assert [len(record["attempts"]) for record in records] == [1] * 3, "a job ran twice"
    assert sorted(record["study"] for record in records) == ["s", "s", "t"]
