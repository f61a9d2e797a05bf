"""The weights of every k-th epoch, for whoever wants to see how a network came to what it does."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
from safetensors.torch import save

from src.callbacks.every import due
from src.runs.record import replacing

log = logging.getLogger(__name__)

NAME = "epoch-{:04d}.safetensors"  # counted from 1: what the network was after so many epochs


class KeptWeights(L.Callback):
    """Writes the network as an epoch's validation sees it (averaged, where weights are averaged), without optimiser.

    What can't be written is said and left out: it is no part of the run's result.

    Args:
        folder: of checkpoints; it need not exist.
        every: epochs from one to the next; the last is always kept. 0 keeps none.
    """

    def __init__(self, folder: Path, *, every: int):
        self.folder, self.every = folder, every

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx or not due(trainer, self.every):
            return
        weights = {name: value.detach().cpu().contiguous() for name, value in pl_module.net.state_dict().items()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / NAME.format(trainer.current_epoch + 1), durable=False) as file:
                file.write(save(weights))
        except OSError as error:
            log.warning("the weights of epoch %d aren't kept (%s)", trainer.current_epoch + 1, error)
