import sys
from typing import ClassVar

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar
from torch.utils.data import DataLoader, TensorDataset

from src.runs.console import log_to
from src.runs.progress import Bar, PlainProgress, duration, progress


class Line(L.LightningModule):
    def __init__(self, clock=None):
        super().__init__()
        self.net, self.clock = torch.nn.Linear(1, 1), clock

    def training_step(self, batch, batch_idx):
        if self.clock:
            self.clock.now += 10.0
        return self.net(batch[0]).mean() * 0 + 1.5

    def validation_step(self, batch, batch_idx):
        self.log("val/acc1", 0.71)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def fit(tmp_path, *, batches=4, every=1e9, ckpt_path=None, accumulate=1, **limits):
    lines, clock = [], Clock()
    data = DataLoader(TensorDataset(torch.zeros(batches, 1)), batch_size=1)
    trainer = L.Trainer(
        accelerator="cpu",
        callbacks=[PlainProgress(every=every, write=lines.append, clock=clock)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        accumulate_grad_batches=accumulate,
        **limits,
    )
    trainer.fit(Line(clock), data, data, ckpt_path=ckpt_path)
    return lines, trainer


def test_a_line_per_epoch(tmp_path):
    lines, _ = fit(tmp_path, max_epochs=3)  # 4 batches of 10 s
    assert lines == [
        "epoch 1/3  loss 1.5  val/acc1 0.71  40.0 s/epoch  time left 1 min 20 s",
        "epoch 2/3  loss 1.5  val/acc1 0.71  40.0 s/epoch  time left 40 s",
        "epoch 3/3  loss 1.5  val/acc1 0.71  40.0 s/epoch  time left 0 s",
    ]


def test_steps_decide_when_they_end_first(tmp_path):
    lines, _ = fit(tmp_path, max_epochs=5, max_steps=6)
    assert lines == [
        "epoch 1/5  step 4/6  loss 1.5  val/acc1 0.71  40.0 s/epoch  time left 20 s",
        "epoch 2/5  step 6/6  loss 1.5  20.0 s  time left 0 s",
    ]


def test_steps_of_several_batches(tmp_path):
    lines, _ = fit(tmp_path, batches=5, accumulate=2, max_epochs=-1, max_steps=6)  # 3 steps, 50 s an epoch
    assert lines[0] == "epoch 1  step 3/6  loss 1.5  val/acc1 0.71  50.0 s/epoch  time left 50 s"
    assert lines[1].endswith("time left 0 s")


def test_lines_within_a_long_epoch(tmp_path):
    lines, _ = fit(tmp_path, max_epochs=1, every=15.0)
    assert lines[0] == "epoch 1/1  loss 1.5  batch 2/4  time left 20 s"
    assert len(lines) == 2 and lines[1].startswith("epoch 1/1  loss 1.5  val/acc1 0.71  40.0 s/epoch")


def test_after_resuming_the_pace_is_this_process_s(tmp_path):
    _, trainer = fit(tmp_path, max_epochs=2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    lines, _ = fit(tmp_path, max_epochs=4, ckpt_path=tmp_path / "last.ckpt")
    assert [line.partition("  ")[0] for line in lines] == ["epoch 3/4", "epoch 4/4"]
    assert lines[0].endswith("40.0 s/epoch  time left 40 s")


def test_says_nothing_when_disabled_as_on_other_ranks(tmp_path):
    bar = PlainProgress()

    class Rank1:
        is_global_zero = False

    bar.setup(Rank1(), None, "fit")
    assert not bar.enabled


def test_lines_reach_the_log(tmp_path):
    with log_to(tmp_path):
        fit(tmp_path, max_epochs=1)
    assert "epoch 1/1  loss 1.5" in (tmp_path / "log.txt").read_text()


def test_prints_at_once(tmp_path, capsys):
    PlainProgress().write("epoch 1/1")
    assert capsys.readouterr().out == "epoch 1/1\n"


def test_chooses_by_the_terminal(monkeypatch):
    assert isinstance(progress(True), RichProgressBar)
    assert isinstance(progress(False), PlainProgress)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert isinstance(progress(), PlainProgress)


def test_the_bar_shows_the_time_left_of_the_whole_training(tmp_path):
    class Spy(Bar):
        seen: ClassVar[list] = []

        def get_metrics(self, trainer, pl_module):
            self.seen.append(super().get_metrics(trainer, pl_module))
            return self.seen[-1]

    data = DataLoader(TensorDataset(torch.zeros(4, 1)), batch_size=1)
    trainer = L.Trainer(accelerator="cpu", max_epochs=2, callbacks=[Spy()], default_root_dir=tmp_path)
    trainer.fit(Line(), data, data)
    assert any(shown.get("time left", "").endswith(" s") for shown in Spy.seen)
    assert not any("v_num" in shown for shown in Spy.seen)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (150, "2 min 30 s"), (11100, "3 h 05 min"), (190000, "2 d 4 h")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text
