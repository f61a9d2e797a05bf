"""The epoch reaches the sampler through Lightning, also when a run is resumed."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint


class Watcher(L.LightningModule):
    """Learns nothing and remembers a sum per training batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[float] = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0].double().sum().item())
        return 0 * self.weight

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, folder, resume=None):
    watcher = Watcher()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=3,
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)],
    )
    trainer.fit(watcher, data, ckpt_path=resume)
    return watcher.seen


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on the number of workers
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_sees_what_an_unbroken_one_sees(make_data, tmp_path, workers):
    whole = fit(make_data("digits", workers=workers), tmp_path)
    steps = 30 // 4
    assert len(set(whole)) == 3 * steps  # new scenes every epoch
    resumed = fit(make_data("digits", workers=workers), tmp_path / "resumed", tmp_path / "epoch=0.ckpt")
    assert resumed == whole[steps:]
