import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning as L
import pytest
import torch
import wandb
from torch.utils.data import DataLoader, TensorDataset

from src.runs import wandb_logger as module
from src.runs.record import read_record
from src.runs.session import claim
from src.runs.wandb_logger import (
    find_offline_runs,
    finish_wandb,
    logged_to_wandb,
    read_offline_run,
    wandb_logger,
)

ROOT = Path(__file__).parents[2]
CFG = {
    "study": "offset",
    "name": "no_offset",
    "seed": 3,
    "axes": ["offset"],
    "data": {"name": "shapes", "workers": 0},
    "model": {"name": "dat", "depths": [1, 2]},
    "logger": {"project": "datlab", "mode": "offline"},
}
ACC1 = [0.1, 0.5, 0.3]


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    for key in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("asked a question"))


def log_some(logger, first=0):
    for step, acc1 in enumerate(ACC1, start=first):
        logger.log_metrics({"train/loss": 2.0 - acc1}, step=step)
        logger.log_metrics({"val/acc1": acc1, "val/loss": 1 - acc1}, step=step)


def test_a_run_reads_back(tmp_path):
    with claim(CFG, root=tmp_path) as run, logged_to_wandb(CFG, run) as logger:
        assert read_record(run.folder)["wandb"]["id"] == logger.experiment.id, "saved before fitting"
        log_some(logger)
        logger.log_metrics({"test/acc1": 0.4}, step=3)
        run.finish({})
    [file] = find_offline_runs(run.folder)
    assert file.is_relative_to(run.folder)

    read = read_offline_run(run.folder)
    assert (read["state"], read["exit_code"], read["project"]) == ("finished", 0, "datlab")
    assert read["name"] == "no_offset-s3" and set(read["tags"]) == {"offset", "shapes", "dat"}
    record = read_record(run.folder)
    expected = {
        **CFG,
        "identity": record["identity"],
        "git": {k: record["git"][k] for k in ("commit", "dirty")},
    }
    assert {k: v for k, v in read["config"].items() if k != "_wandb"} == expected
    summary = read["summary"]
    assert summary["val/acc1"] == {"max": 0.5} and summary["val/loss"] == {"min": 0.5}
    assert summary["train/loss"] == {"min": 1.5} and summary["test/acc1"] == 0.4
    assert [row["val/acc1"] for row in read["history"] if "val/acc1" in row] == ACC1
    assert [row["trainer/global_step"] for row in read["history"] if "val/acc1" in row] == [0, 1, 2]


def test_tags_name_the_model_by_its_class_if_it_has_no_name():
    cfg = {**CFG, "study": "offset", "model": {"_target_": "src.models.dat.DAT"}, "data": {"name": "d" * 70}}
    assert module.tags_of(cfg) == ["offset", "d" * 64, "DAT"]


def test_is_grouped_by_variant(tmp_path):
    with claim(CFG, root=tmp_path) as run, logged_to_wandb(CFG, run) as logger:
        assert logger.experiment.group == "no_offset" and logger.experiment.job_type == "train"
        run.finish({})


def test_every_metric_goes_over_the_trainers_steps(tmp_path):
    with claim(CFG, root=tmp_path) as run, logged_to_wandb(CFG, run) as logger:
        logger.log_metrics({"anything": 1.0}, step=7)
        run.finish({})
    records = [json.loads(line) for line in module.inspect_file(find_offline_runs(run.folder)[0]).splitlines()]
    metrics = [record["metric"] for record in records if record["type"] == "metric"]
    over = {m.get("name") or m.get("glob_name"): m.get("step_metric") for m in metrics}
    assert over.pop("trainer/global_step") is None
    assert over == dict.fromkeys(["*", *module.SUMMARIES], "trainer/global_step")


@pytest.mark.parametrize(("raised", "code"), [(ValueError, 1), (KeyboardInterrupt, 255), (SystemExit, 1)])
def test_a_run_that_went_wrong_is_not_shown_as_finished(tmp_path, raised, code):
    with pytest.raises(raised), claim(CFG, root=tmp_path) as run, logged_to_wandb(CFG, run) as logger:
        log_some(logger)
        raise raised
    read = read_offline_run(run.folder)
    assert (read["state"], read["exit_code"]) == ("failed", code)
    assert len([row for row in read["history"] if "val/acc1" in row]) == 3


def test_jobs_in_one_process_get_their_own_runs(tmp_path):
    for seed in range(3):
        cfg = {**CFG, "seed": seed}
        with claim(cfg, root=tmp_path) as run, logged_to_wandb(cfg, run) as logger:
            log_some(logger, first=10 * seed)
            run.finish({})
    folders = sorted(tmp_path.glob("*/*/seed*"))
    reads = [read_offline_run(folder) for folder in folders]
    assert len(folders) == 3 and len({read["run_id"] for read in reads}) == 3
    assert [read["config"]["seed"] for read in reads] == [0, 1, 2]
    assert [read["summary"]["trainer/global_step"] for read in reads] == [2, 12, 22]


def test_not_even_a_run_left_open_is_shared(tmp_path):
    with claim(CFG, root=tmp_path) as run:
        left_open = wandb_logger(CFG, run)
        run.finish({})
    cfg = {**CFG, "seed": 4}
    with claim(cfg, root=tmp_path) as run, logged_to_wandb(cfg, run) as logger:
        assert logger.experiment.id != left_open.experiment.id
        run.finish({})
    finish_wandb(left_open, 1)
    finish_wandb(left_open, 1)  # a second time does nothing


def test_a_resumed_run_goes_on(tmp_path):
    with pytest.raises(ValueError), claim(CFG, root=tmp_path) as run, logged_to_wandb(CFG, run) as logger:
        log_some(logger)
        raise ValueError
    time.sleep(1.1)  # W&B names its folders by the second
    with claim(CFG, root=tmp_path) as run, logged_to_wandb(CFG, run) as logger:
        log_some(logger, first=3)
        run.finish({})
    first, second = find_offline_runs(run.folder)
    assert first.name == second.name, "one id"
    read = read_offline_run(run.folder)
    assert read["state"] == "finished"
    rows = [row for row in read["history"] if "val/acc1" in row]
    assert [row["trainer/global_step"] for row in rows] == [0, 1, 2, 3, 4, 5]
    steps = [row["_step"] for row in read["history"]]
    assert steps == sorted(set(steps)), "no row of the second attempt takes the place of one of the first"
    assert read["summary"]["attempt"] == 2


def test_another_rerun_is_another_run(tmp_path):
    ids = []
    for rerun in (False, True):
        with claim(CFG, root=tmp_path, rerun=rerun) as run, logged_to_wandb(CFG, run) as logger:
            ids.append(logger.experiment.id)
            run.finish({})
    assert ids[0] != ids[1]


def test_follows_lightning_through_a_fit(tmp_path):
    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(1, 1)

        def training_step(self, batch, batch_idx):
            loss = self.net(batch[0]).square().mean()
            self.log("train/loss", loss)
            return loss

        def validation_step(self, batch, batch_idx):
            self.log("val/acc1", ACC1[self.current_epoch])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    data = DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=2)
    with claim(CFG, root=tmp_path) as run, logged_to_wandb(CFG, run) as logger:
        L.Trainer(
            accelerator="cpu",
            logger=logger,
            max_epochs=3,
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=tmp_path,
        ).fit(Module(), data, data)
        run.finish({})
    read = read_offline_run(run.folder)
    assert read["summary"]["val/acc1"] == {"max": 0.5} and read["summary"]["trainer/global_step"] == 5
    assert [row["val/acc1"] for row in read["history"] if "val/acc1" in row] == pytest.approx(ACC1)


def test_other_ranks_start_nothing(tmp_path, monkeypatch):
    with claim(CFG, root=tmp_path) as run:
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setattr(wandb, "init", lambda **kwargs: pytest.fail("started a run"))
        finish_wandb(wandb_logger(CFG, run), 0)
        monkeypatch.delenv("RANK")
        run.finish({})


def test_a_killed_run_is_neither_finished_nor_left_hanging(tmp_path):
    script = """
import sys, time
sys.path.insert(0, "tests/runs")
from test_runs_wandb import CFG, claim, log_some, logged_to_wandb
with claim(CFG, root=sys.argv[1]) as run, logged_to_wandb(CFG, run) as logger:
    log_some(logger)
    print(run.folder, flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    job = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    folder = Path(job.stdout.readline().strip())
    time.sleep(module.FLUSH_EVERY + 1)
    job.send_signal(signal.SIGKILL)
    job.communicate(timeout=10)
    assert job.returncode == -signal.SIGKILL
    read = read_offline_run(folder)
    assert read["state"] not in ("finished", "failed") and read["config"]["seed"] == 3
    assert read["summary"]["val/acc1"] == {"max": 0.5}

    with claim(CFG, root=tmp_path) as run, logged_to_wandb(CFG, run) as logger:
        assert logger.experiment.id == read["run_id"], "the same run goes on"
        log_some(logger, first=3)
        run.finish({})
    steps = [row["_step"] for row in read_offline_run(folder)["history"]]
    assert steps == sorted(set(steps)) and len(steps) >= 12


# ------------------------------------------------------------------------------------------- mode


def mode_used(tmp_path, mode):
    cfg = {**CFG, "logger": {"project": "datlab", "mode": mode}}
    with claim(cfg, root=tmp_path) as run, logged_to_wandb(cfg, run):
        run.finish({})
    return read_record(run.folder)["wandb"]["mode"]


def test_without_a_key_auto_is_offline(tmp_path):
    assert mode_used(tmp_path, "auto") == "offline"


def test_without_a_key_online_is_offline_and_says_so(tmp_path, caplog):
    assert mode_used(tmp_path, "online") == "offline"
    assert "has no key" in caplog.text


def test_disabled_writes_nothing(tmp_path):
    assert mode_used(tmp_path, "disabled") == "disabled"
    assert not list(tmp_path.rglob("*.wandb"))
    with pytest.raises(FileNotFoundError, match=r"holds no wandb"):
        read_offline_run(tmp_path)


def test_without_a_network_online_becomes_offline(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(module, "INIT_TIMEOUT", 2.0)
    began = time.monotonic()
    cfg = {**CFG, "logger": {"project": "datlab", "mode": "auto"}}
    with claim(cfg, root=tmp_path) as run, logged_to_wandb(cfg, run) as logger:
        log_some(logger)
        run.finish({})
    assert time.monotonic() - began < 30
    warned = [record.getMessage() for record in caplog.records if "cannot be reached" in record.getMessage()]
    assert len(warned) == 1 and "\n" not in warned[0]
    assert read_record(run.folder)["wandb"]["mode"] == "offline"
    read = read_offline_run(run.folder)
    assert read["state"] == "finished" and read["summary"]["val/acc1"] == {"max": 0.5}
    assert "0" * 40 not in (run.folder / "record.json").read_text()


@pytest.mark.parametrize(
    ("environment", "wanted", "mode"),
    [
        ({}, "auto", "offline"),
        ({"WANDB_API_KEY": "0" * 40}, "auto", "online"),
        ({"WANDB_API_KEY": "0" * 40, "WANDB_MODE": "offline"}, "auto", "offline"),
        ({"WANDB_API_KEY": "0" * 40, "WANDB_MODE": "dryrun"}, "auto", "offline"),
        ({"WANDB_MODE": "disabled"}, "auto", "disabled"),
        ({"WANDB_MODE": "online"}, "auto", "offline"),
        ({"WANDB_API_KEY": "0" * 40}, "offline", "offline"),
    ],
)
def test_mode(monkeypatch, environment, wanted, mode):
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert module.effective_mode(wanted) == mode


def test_a_key_in_netrc_counts(monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {'0' * 40}\n")
    assert module.effective_mode("auto") == "online"


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="choose one of auto, online"):
        module.effective_mode("on")
