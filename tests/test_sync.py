import json
import os
import time

import pytest
import wandb_server

from src import sync as module
from src.runs.process import this_process
from src.runs.record import Record
from src.runs.session import BEST, CHECKPOINT, claim
from src.runs.wandb_artifacts import log_checkpoints
from src.runs.wandb_logger import find_offline_runs, inspect_file, logged_to_wandb

CFG = {
    "study": "offset",
    "name": "no_offset",
    "seed": 3,
    "axes": ["offset"],
    "data": {"name": "shapes"},
    "model": {"name": "dat"},
    "logger": {"project": "datlab", "mode": "offline", "checkpoints": True},
}


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    clean(monkeypatch, tmp_path)


def clean(monkeypatch, folder):
    for key in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("NETRC", str(folder / "netrc"))


# ---------------------------------------------------------------------------- which, and in which order


def logged_run(runs, variant, *, attempts=1, status="finished", study="offset", checkpoints=False):
    """A run with files as W&B would have left them, but for what is in them."""
    folder = runs / study / variant / "seed0-0123456789"
    began = {"start": "2026-01-01T00:00:00+00:00", "end": None, **this_process()}
    config = {"study": study, "logger": {"checkpoints": checkpoints}}
    folder.mkdir(parents=True)
    Record(folder, {"status": status, "attempts": [began], "config": config}).update()
    for number in range(attempts):
        # Named so that the order of names is not that of starts.
        log_file(folder, f"2026010{9 - number}_000000", variant, age=100 - number)
    return folder


def log_file(folder, when, key, *, age, prefix="offline-run"):
    file = folder / "wandb" / f"{prefix}-{when}-{key}" / f"run-{key}.wandb"
    file.parent.mkdir(parents=True)
    file.write_text("")
    os.utime(file, (time.time() - age,) * 2)


@pytest.fixture
def calls(monkeypatch):
    """Uploads that were begun; those in `calls.failing` fail."""

    class Calls(list):
        failing = ()

    calls = Calls()

    def upload(file, logs):
        name = f"{file.stem.removeprefix('run-')} {file.parent.name[len('offline-run-2026010')]}"
        calls.append(name)
        if name in calls.failing:
            return "the server is full"
        file.with_name(file.name + ".synced").touch()
        return None

    monkeypatch.setattr(module, "upload", upload)
    monkeypatch.setenv("WANDB_API_KEY", wandb_server.KEY)
    return calls


@pytest.fixture
def runs(tmp_path):
    logged_run(tmp_path, "b", attempts=2)
    logged_run(tmp_path, "a")
    log_file(tmp_path / "offset" / ".report", "20260101_000000", "report", age=500)
    return tmp_path


def test_attempts_go_in_the_order_of_their_starts_and_reports_last(runs, calls, capsys):
    assert module.main([str(runs)]) == 0
    assert calls == ["a 9", "b 9", "b 8", "report 1"]
    assert capsys.readouterr().out.splitlines()[-1] == "3 sent"


def test_what_was_sent_is_not_sent_again(runs, calls, capsys):
    module.main([str(runs)])
    log_file(runs / "offset" / "b" / "seed0-0123456789", "20260107_000000", "b", age=1)  # one more attempt
    calls.clear()
    assert module.main([str(runs)]) == 0
    assert calls == ["b 7"]
    assert capsys.readouterr().out.splitlines()[-1] == "2 already there, 1 sent"


def test_a_study_and_a_run_can_be_sent_alone(runs, calls):
    logged_run(runs, "c", study="other")
    assert module.main([str(runs / "offset" / "a" / "seed0-0123456789")]) == 0
    assert calls == ["a 9"]
    calls.clear()
    assert module.main([str(runs / "offset")]) == 0
    assert calls == ["b 9", "b 8", "report 1"]


def test_after_a_failure_the_run_waits_and_the_others_go_on(runs, calls, capsys):
    calls.failing = ("b 9",)
    assert module.main([str(runs)]) == 1
    assert calls == ["a 9", "b 9", "report 1"], "the second attempt of b would come before its first"
    said = capsys.readouterr().out
    assert f"failed: {runs / 'offset/b/seed0-0123456789'} (the server is full)" in said
    assert said.splitlines()[-1] == "2 sent, 1 failed"
    calls.failing = ()
    calls.clear()
    assert module.main([str(runs)]) == 0
    assert calls == ["b 9", "b 8"]


def test_gives_up_on_a_server_that_takes_nothing(runs, calls, capsys):
    logged_run(runs, "c"), logged_run(runs, "d")
    calls.failing = ("a 9", "b 9", "c 9", "d 9", "report 1")
    assert module.main([str(runs)]) == 1
    assert calls == ["a 9", "b 9", "c 9"]
    assert capsys.readouterr().out.splitlines()[-1] == "3 failed, 2 not tried"


def test_a_run_at_work_is_left_for_later(tmp_path, calls, capsys):
    folder = logged_run(tmp_path, "a", status="running")
    assert module.main([str(tmp_path)]) == 0
    assert not calls and "still running" in capsys.readouterr().out
    Record(folder, {"status": "finished", "attempts": [{}], "config": {}}).update()
    assert module.main([str(tmp_path)]) == 0
    assert calls == ["a 9"]


def test_what_was_logged_online_is_not_touched(tmp_path, calls):
    folder = logged_run(tmp_path, "a", attempts=0)
    log_file(folder, "20260101_000000", "a", age=1, prefix="run")
    assert module.main([str(tmp_path)]) == 0
    assert not calls


def test_says_which_checkpoints_are_gone(tmp_path, calls, capsys):
    folder = logged_run(tmp_path, "a", checkpoints=True)
    (folder / CHECKPOINT).parent.mkdir()
    (folder / CHECKPOINT).touch()
    assert module.main([str(tmp_path)]) == 0
    assert "(without best.ckpt, no longer there)" in capsys.readouterr().out


def test_a_dry_run_sends_nothing_and_needs_no_account(runs, calls, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_API_KEY")
    assert module.main([str(runs), "--dry-run"]) == 0
    assert not calls
    assert capsys.readouterr().out.splitlines()[-1] == "3 to be sent"


def test_without_an_account_one_line_says_what_to_do(runs, calls, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_API_KEY")
    assert module.main([str(runs)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "wandb login" in line and not calls


def test_a_folder_that_is_none_is_refused(tmp_path, capsys):
    assert module.main([str(tmp_path / "nowhere")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_nothing_to_send_is_no_failure(tmp_path, calls, capsys):
    assert module.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("nothing was logged offline")


# -------------------------------------------------------------------------------------- W&B's own sync


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A run of two attempts, with checkpoints, that W&B logged offline."""
    root = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as monkeypatch:
        clean(monkeypatch, root)
        with pytest.raises(ValueError), claim(CFG, root=root / "runs") as run, logged_to_wandb(CFG, run) as logger:
            logger.log_metrics({"val/acc1": 0.1}, step=0)
            raise ValueError
        time.sleep(1.1)  # W&B names its folders by the second
        with claim(CFG, root=root / "runs") as run, logged_to_wandb(CFG, run) as logger:
            logger.log_metrics({"val/acc1": 0.2}, step=1)
            for path in (BEST, CHECKPOINT):
                (run.folder / path).parent.mkdir(exist_ok=True)
                (run.folder / path).write_bytes(path.name.encode() * 100)
            run.finish({"val/acc1": 0.2})
            log_checkpoints(logger, run)
    return run.folder


def rows(file):
    records = map(json.loads, inspect_file(file).splitlines())
    return [record["history"]["item"]["_step"] for record in records if record["type"] == "history"]


def test_a_server_that_refuses_is_a_failure_and_marks_nothing(real, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", wandb_server.KEY)
    with wandb_server.wandb_server(refusing=True) as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        assert module.main([str(real)]) == 1
    assert server.asked, "it was asked"
    said = capsys.readouterr()
    assert f"failed: {real} (" in said.out and "you may not" in said.out
    assert wandb_server.KEY not in said.out + said.err
    assert not list(real.rglob("*.synced"))


def test_a_server_that_accepts_gets_all_once(real, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", wandb_server.KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")  # as on the machine where the run was made
    monkeypatch.chdir(tmp_path)
    with wandb_server.wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        assert module.main([str(real)]) == 0, capsys.readouterr().out
        asked = len(server.asked)
        assert module.main([str(real)]) == 0
    assert len(server.asked) == asked, "the second time there is nothing to say"
    assert capsys.readouterr().out.splitlines()[-1] == "1 already there"
    assert not list(tmp_path.glob("wandb")), "W&B's logs are not strewn about"

    assert len({variables["name"] for variables in server.variables("UpsertBucket")}) == 1, "one run"
    first, second = find_offline_runs(real)
    assert server.steps == rows(first) + rows(second)
    made = [variables["input"] for variables in server.variables("CreateArtifact")]
    aliases = [{alias["alias"] for alias in artifact["aliases"]} for artifact in made]
    assert aliases == [{"best", "latest"}, {"latest"}], "latest ends on last.ckpt, which comes second"
    assert (server.uploaded["best.ckpt"], server.uploaded["last.ckpt"]) == (900, 900)
