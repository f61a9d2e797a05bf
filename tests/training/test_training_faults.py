"""What breaks while a run computes, and what is left of it: divergence, damaged files, a full disk."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from src import training
from src.callbacks import progress_file
from src.config import CONF, load_config
from src.runs.record import find_records, read_progress
from src.runs.session import Diverged
from src.runs.wandb_logger import exit_code

TINY = (
    "recipe.epochs=3",
    "recipe.warmup_epochs=1",
    "recipe.batch_size=4",
    "data.scenes_per_epoch=24",  # 6 batches
    "data.val_scenes=6",
    "data.test_scenes=6",
    "trainer.accelerator=cpu",
    "progress=lines",
    "logger=csv",
)
RESULTS = ("val/acc1", "test/acc1", "test/loss", "best_epoch", "test/acc1_per_class")


def tiny(tmp_path, *overrides):
    return load_config(*TINY, f"runs={tmp_path}", *overrides)


def ruin(monkeypatch, at, how):
    """Every training loss from batch `at` on, counted from 1 since the run began, goes through `how`."""
    step, batches = training.ImageClassifier.training_step, []

    def ruined(self, batch, batch_idx):
        batches.append(batch_idx)
        loss = step(self, batch, batch_idx)
        return how(self, loss) if len(batches) >= at else loss

    monkeypatch.setattr(training.ImageClassifier, "training_step", ruined)
    return batches


def is_nan(task, loss):
    return loss * torch.nan


def is_finite_but_its_gradient_is_not(task, loss):
    return loss + (0 * next(task.parameters()).sum()).abs().sqrt()


def diverge(cfg):
    with pytest.raises(Diverged) as caught:
        training.train(cfg)
    assert "\n" not in str(caught.value)
    (record,) = find_records(cfg["runs"])
    assert record["status"] == record["attempts"][-1]["status"] == "diverged"
    assert record["error"]["type"] == "Diverged" and record["error"]["message"] == str(caught.value)
    assert exit_code(caught.value) == 1
    return record


def checkpoints(record):
    found = Path(record["folder"], "checkpoints").glob("*.ckpt")
    return {path.name: torch.load(path, weights_only=True) for path in found}


# ------------------------------------------------------------------------------------------ divergence


@pytest.mark.parametrize(
    ("at", "every", "stops_at"),
    [
        (8, 3, 9),  # at the next look, the third batch of the second epoch
        (9, 3, 9),
        (10, 100, 12),  # at the end of the epoch at the latest
        (12, 100, 12),
        (8, 0, 12),
    ],
)
def test_a_run_whose_loss_is_no_number_stops(tmp_path, monkeypatch, at, every, stops_at):
    batches = ruin(monkeypatch, at, is_nan)
    record = diverge(tiny(tmp_path, f"trainer.log_every_n_steps={every}"))
    assert len(batches) == stops_at
    message = record["error"]["message"]
    assert message.startswith(f"epoch 2, step {stops_at}: ") and "recipe.base_lr" in message
    for name, saved in checkpoints(record).items():
        assert saved["epoch"] == 0, name
        assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values()), name


def test_weights_that_the_last_update_ruined_are_not_saved(tmp_path, monkeypatch):
    ruin(monkeypatch, 12, is_finite_but_its_gradient_is_not)
    record = diverge(tiny(tmp_path))
    assert "the loss or the weights are not finite" in record["error"]["message"]
    assert {saved["epoch"] for saved in checkpoints(record).values()} == {0}


def test_too_high_a_learning_rate_diverges(tmp_path):
    overrides = ("recipe.base_lr=1e30", "recipe.warmup_epochs=0", "trainer.log_every_n_steps=1")
    record = diverge(tiny(tmp_path, *overrides))
    assert not checkpoints(record)


def test_looking_changes_nothing_and_reads_rarely(tmp_path, monkeypatch):
    reads, stop_if = [], training.Divergence._stop_if

    def counted(self, *args):
        reads.append(args)
        stop_if(self, *args)

    monkeypatch.setattr(training.Divergence, "_stop_if", counted)
    cfg = tiny(tmp_path, "recipe.epochs=2", "trainer.log_every_n_steps=4")
    assert np.isfinite(training.train(cfg)["test/loss"])
    assert len(reads) == 2 * 2, "after the fourth and the last of 6 batches"


TWO_RANKS = """
import os
import lightning as L, torch
from torch.utils.data import DataLoader, TensorDataset
from src.callbacks.divergence import Divergence
from src.runs.session import Diverged
class Line(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(1, 1)
    def training_step(self, batch, batch_idx):
        loss = self.net(batch[0]).mean()
        # Detached, so that the other rank's gradients stay what they are.
        return loss + torch.nan * loss.detach() if self.global_rank == 1 and batch_idx == 2 else loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
class Told(Divergence):
    def on_train_batch_end(self, trainer, *args):
        try:
            super().on_train_batch_end(trainer, *args)
        except Diverged:
            said = f"rank {trainer.global_rank} after step {trainer.global_step}\\n"
            os.write(1, said.encode())  # at once: print writes the end of the line by itself
            trainer.strategy.barrier()  # the first to end takes the others with it
            raise
if __name__ == "__main__":
    options = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer = L.Trainer(accelerator="cpu", devices=2, strategy="ddp_fork", max_epochs=1, log_every_n_steps=2,
                        callbacks=[Told()], **options)
    trainer.fit(Line(), DataLoader(TensorDataset(torch.zeros(12, 1)), batch_size=1))
"""


def test_all_ranks_stop_at_the_same_step(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TWO_RANKS]
    job = subprocess.run(command, cwd=CONF.parent, env=environment, capture_output=True, text=True, timeout=60)
    told = sorted(line for line in job.stdout.splitlines() if line.startswith("rank"))
    assert told == ["rank 0 after step 4", "rank 1 after step 4"], job.stderr


# -------------------------------------------------------------------------------------- damaged files


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return training.train(tiny(tmp_path_factory.mktemp("undisturbed")))


def cut_power(cfg, monkeypatch, at):
    """Trains until batch `at`."""

    class Power(Exception):
        pass

    def cut(task, loss):
        raise Power("cut")

    with monkeypatch.context() as patch:
        ruin(patch, at, cut)
        with pytest.raises(Power):
            training.train(cfg)
    (record,) = find_records(cfg["runs"])
    return Path(record["folder"])


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damaged", "resumed"),
    [
        (["last.ckpt"], "checkpoints/previous.ckpt"),
        (["last.ckpt", "previous.ckpt"], None),
        (["best.ckpt"], None),
    ],
)
def test_a_run_with_damaged_checkpoints_ends_as_if_nothing_had_happened(
    tmp_path, monkeypatch, undisturbed, damaged, resumed
):
    cfg = tiny(tmp_path)
    folder = cut_power(cfg, monkeypatch, at=14)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    for name in damaged:
        damage(folder / "checkpoints" / name)
    metrics = training.train(cfg)
    (record,) = find_records(tmp_path)
    assert record["status"] == "finished" and record["attempts"][1]["resume_from"] == resumed
    assert {key: metrics[key] for key in RESULTS} == {key: undisturbed[key] for key in RESULTS}


def test_a_best_checkpoint_damaged_meanwhile_is_not_tested(tmp_path, monkeypatch, undisturbed):
    cfg, fit = tiny(tmp_path), training.L.Trainer.fit

    def fit_then_damage(self, *args, **kwargs):
        fit(self, *args, **kwargs)
        (record,) = find_records(tmp_path)
        damage(Path(record["folder"], "checkpoints", "best.ckpt"))

    with monkeypatch.context() as patch:
        patch.setattr(training.L.Trainer, "fit", fit_then_damage)
        with pytest.raises(RuntimeError, match=r"best\.ckpt is damaged.*start the job again"):
            training.train(cfg)
    metrics = training.train(cfg)
    assert {key: metrics[key] for key in RESULTS} == {key: undisturbed[key] for key in RESULTS}


def test_the_score_is_that_of_the_weights_that_are_tested(tmp_path, monkeypatch):
    """Killed between the two checkpoints of an epoch, a run may not reach again, on a GPU, what `best.ckpt` holds."""
    cfg = tiny(tmp_path)
    folder = cut_power(cfg, monkeypatch, at=14)
    path = folder / "checkpoints" / "best.ckpt"
    best = torch.load(path, weights_only=True)
    (key,) = (key for key in best["callbacks"] if "ModelCheckpoint" in key and "val/acc1" in key)
    best["callbacks"][key]["best_model_score"] = torch.tensor(2.0)  # above all that can be reached
    torch.save(best, path)
    for name in ("last.ckpt", "previous.ckpt"):
        saved = torch.load(folder / "checkpoints" / name, weights_only=True)
        saved["callbacks"][key]["kth_value"] = torch.tensor(1.5)  # so that no later epoch is better
        saved["callbacks"][key]["best_k_models"] = {str(path): torch.tensor(1.5)}
        saved["callbacks"][key]["best_model_score"] = torch.tensor(1.5)
        torch.save(saved, folder / "checkpoints" / name)
    metrics = training.train(cfg)
    assert metrics["val/acc1"] == 2.0 and metrics["best_epoch"] == best["epoch"]


# ------------------------------------------------------------------------------------------- progress


@pytest.fixture
def written(monkeypatch):
    """All that is written as a run's progress."""
    contents, write = [], progress_file.write_json

    def noted(path, content, **options):
        write(path, content, **options)
        contents.append(json.loads(path.read_text()))
        assert read_progress(path.parent) == contents[-1]

    monkeypatch.setattr(progress_file, "write_json", noted)
    return contents


def test_progress_tells_how_far_a_run_is(tmp_path, monkeypatch, written):
    monkeypatch.setattr(progress_file, "EVERY", 0.0)
    training.train(tiny(tmp_path, "trainer.log_every_n_steps=1"))
    fit = [content for content in written if content["phase"] == "fit"]
    test = [content for content in written if content["phase"] == "test"]
    assert written == fit + test and len(test) == 1 + 2

    first, last = fit[0], fit[-1]
    assert (first["epoch"], first["epochs"], first["step"], first["steps"]) == (1, 3, 0, 18)
    assert first["seconds_left"] is None and first["images_per_second"] is None and first["metrics"] == {}
    assert (last["epoch"], last["step"], last["seconds_left"]) == (3, 18, 0)
    assert sorted({content["step"] for content in fit}) == list(range(19)), "after every batch"
    assert {content["epoch"] for content in fit} == {1, 2, 3}
    times, left = [content["time"] for content in fit], [content["seconds_left"] for content in fit[1:]]
    assert times == sorted(times) and min(left) == left[-1] and left[1] > 0
    assert 0 < last["images_per_second"] < 1e5

    validated = next(content for content in fit if "val/acc1" in content["metrics"])
    assert (validated["epoch"], validated["step"]) == (1, 6) and {"val/loss", "train/loss"} < set(validated["metrics"])
    assert len({content["metrics"].get("train/loss") for content in fit}) > 10, "the latest"
    for content in test:
        assert content["metrics"] == last["metrics"] and content["seconds_left"] is None
        assert (content["epoch"], content["step"], content["steps"]) == (3, 18, 18)


def test_progress_is_written_rarely(tmp_path, monkeypatch, written):
    monkeypatch.setattr(progress_file, "EVERY", 1e9)
    training.train(tiny(tmp_path))
    # At the beginnings of training and test, and at the ends of validations and epochs.
    assert len(written) == 1 + 3 * 2 + 1


def test_progress_of_a_resumed_run_counts_all_steps(tmp_path, monkeypatch, written):
    cfg = tiny(tmp_path)
    cut_power(cfg, monkeypatch, at=9)
    written.clear()
    training.train(cfg)
    assert (written[0]["epoch"], written[0]["step"], written[0]["steps"]) == (2, 6, 18)


def test_a_run_that_was_killed_while_it_tested_tells_its_progress(tmp_path, monkeypatch, written):
    """Then there is nothing left to train."""
    cfg = tiny(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(training.ImageClassifier, "test_step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            training.train(cfg)
    written.clear()
    training.train(cfg)
    assert [content["phase"] for content in written[:1]] == ["test"] and written[0]["steps"] == 18


def test_a_disk_too_full_for_progress_ends_no_run(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(progress_file, "write_json", full)
    training.train(tiny(tmp_path, "recipe.epochs=1", "recipe.warmup_epochs=0"))
    (record,) = find_records(tmp_path)
    assert record["status"] == "finished" and read_progress(record["folder"]) is None
