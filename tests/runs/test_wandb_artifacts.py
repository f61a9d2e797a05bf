import json
import os
from types import SimpleNamespace

import pytest
import wandb
from wandb.env import DATA_DIR

from src import training
from src.runs import wandb_artifacts as module
from src.runs.session import BEST, CHECKPOINT, claim
from src.runs.wandb_artifacts import artifact_name, log_checkpoints, staged_in
from src.runs.wandb_logger import find_offline_runs, inspect_file, logged_to_wandb

SIZE = 1_000_000
METRICS = {"test/acc1": 0.4, "test/acc1_per_class": [0.3, 0.5], "epochs": 5}
CFG = {
    "study": "offset",
    "name": "no_offset",
    "seed": 3,
    "axes": ["offset"],
    "data": {"name": "shapes"},
    "model": {"name": "dat"},
    "logger": {"wandb": True, "project": "datlab", "mode": "offline", "checkpoints": True},
}


@pytest.fixture(scope="module", autouse=True)
def no_account(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        for key in [key for key in os.environ if key.startswith("WANDB_")]:
            monkeypatch.delenv(key)
        home = tmp_path_factory.mktemp("home")
        monkeypatch.setenv("NETRC", str(home / "netrc"))
        monkeypatch.setenv("XDG_DATA_HOME", str(home))
        yield home


def write_checkpoints(folder):
    (folder / BEST).parent.mkdir()
    (folder / BEST).write_bytes(b"b" * SIZE)
    (folder / CHECKPOINT).write_bytes(b"l" * SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, no_account):
    with claim(CFG, root=tmp_path_factory.mktemp("runs")) as run, logged_to_wandb(CFG, run) as logger:
        write_checkpoints(run.folder)
        run.finish(METRICS)
        log_checkpoints(logger, run)
    return run.folder


@pytest.fixture
def artifacts(folder):
    [file] = find_offline_runs(folder)
    records = map(json.loads, inspect_file(file).splitlines())
    return [record["artifact"] for record in records if record["type"] == "artifact"]


def test_best_comes_first_and_latest_ends_on_last(folder, artifacts):
    best, last = artifacts
    identity = folder.name.partition("-")[2]
    assert best["name"] == last["name"] == f"offset-no_offset-{identity}"
    assert best["type"] == "model" and set(best["aliases"]) == {"best", "latest"} and last["aliases"] == ["latest"]
    for artifact, path in ((best, BEST), (last, CHECKPOINT)):
        [content] = artifact["manifest"]["contents"]
        assert content["path"] == path.name and int(content["size"]) == SIZE
        about = json.loads(artifact["metadata"])
        assert about["metrics"] == METRICS and about["identity"] == identity
        assert (about["study"], about["name"], about["seed"]) == ("offset", "no_offset", 3)


def test_nothing_is_copied(folder, artifacts, no_account):
    for artifact, path in zip(artifacts, (BEST, CHECKPOINT), strict=True):
        [content] = artifact["manifest"]["contents"]
        assert content["local_path"] == str(folder / path) and content["skip_cache"]
    written = sum(file.stat().st_size for file in (folder / "wandb").rglob("*") if file.is_file())
    assert written < SIZE / 10
    assert not [file for file in no_account.rglob("*") if file.is_file()]


def test_a_sharded_checkpoint_is_taken_where_it_lies(tmp_path):
    (tmp_path / "last.ckpt").mkdir()
    (tmp_path / "last.ckpt" / "shard").write_bytes(b"x")
    artifact = wandb.Artifact("name", "model")
    module._add(artifact, tmp_path / "last.ckpt")
    [entry] = artifact.manifest.entries.values()
    assert entry.path == "last.ckpt/shard" and entry.local_path == str(tmp_path / "last.ckpt" / "shard")


def test_a_failure_is_a_warning(tmp_path, caplog):
    def refuse(*args, **kwargs):
        raise OSError("the disk is full")

    logger = SimpleNamespace(experiment=SimpleNamespace(log_artifact=refuse))
    with claim(CFG, root=tmp_path) as run:
        run.finish(METRICS)
        log_checkpoints(logger, run)
        assert "not in W&B" in caplog.text and "best.ckpt" in caplog.text, "there is no such file"
        caplog.clear()
        write_checkpoints(run.folder)
        log_checkpoints(logger, run)
        assert "the disk is full" in caplog.text
    assert DATA_DIR not in os.environ


def test_other_ranks_log_nothing(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    log_checkpoints(None, None)


@pytest.mark.parametrize(
    ("variant", "name"),
    [("s=0.5 (a/b)", "study-s-0.5--a-b--0123456789"), ("v" * 200, f"study-{'v' * 111}-0123456789")],
)
def test_names_are_such_as_wandb_takes(variant, name):
    assert artifact_name("study", variant, "0123456789") == name
    assert len(name) <= 128
    wandb.Artifact(name, "model")


def test_copies_go_where_the_user_wants_them(tmp_path, monkeypatch):
    with staged_in(tmp_path / "ours"):
        assert os.environ[DATA_DIR] == str(tmp_path / "ours")
    assert DATA_DIR not in os.environ
    monkeypatch.setenv(DATA_DIR, "theirs")
    with staged_in(tmp_path / "ours"):
        assert os.environ[DATA_DIR] == "theirs"
    assert os.environ[DATA_DIR] == "theirs"


@pytest.mark.parametrize(
    ("switches", "logged"),
    [({"checkpoints": True}, 1), ({"checkpoints": False}, 0), ({}, 0), ({"checkpoints": True, "wandb": False}, 0)],
)
def test_a_training_logs_them_once_it_has_its_result_if_told_to(tmp_path, monkeypatch, switches, logged):
    logger = {"wandb": True, "project": "datlab", "mode": "disabled", **switches}
    cfg = {**CFG, "logger": logger, "runs": str(tmp_path), "rerun": False}
    metrics = {"val/acc1": 0.4, "test/acc1": 0.4, "best_epoch": 2}
    calls = []
    monkeypatch.setattr(training, "check", lambda cfg: {"data_fingerprint": None})
    monkeypatch.setattr(training, "pinned", lambda cfg, fingerprint: cfg)
    monkeypatch.setattr(training, "code_files", lambda cfg: {})
    monkeypatch.setattr(training, "_fit_and_test", lambda cfg, run, loggers: metrics)
    monkeypatch.setattr(training, "log_checkpoints", lambda logger, run: calls.append(run.record.data["metrics"]))
    training.train(cfg)
    assert calls == [metrics] * logged
