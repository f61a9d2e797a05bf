"""Where points lie on the same few images, seen again every k epochs: a picture in the run's folder, and in W&B."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger

from src.callbacks.every import due
from src.looking.points import IMAGES, points_of

log = logging.getLogger(__name__)

FOLDER, NAME = "points", "epoch-{:04d}.png"  # counted from 1: what the network does after so many epochs
KEY = "points"  # in W&B


class PointsPictures(L.Callback):
    """Draws the first validation images with the points of every deformable block, as the network being validated has
    them (averaged, where weights are averaged). What can't be drawn is said once and ends nothing.

    Args:
        folder: the run's.
        every: epochs from one picture to the next; the last is always drawn. 0 draws none.
    """

    def __init__(self, folder: Path, *, every: int):
        self.folder, self.every = folder / FOLDER, every
        self._failed = False

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx or not due(trainer, self.every):
            return
        try:
            self._draw(trainer, pl_module.net, batch[0][:IMAGES])
        except Exception as error:  # whatever comes: it's a picture
            if not self._failed:
                log.warning("no picture of the points (%s: %s)", type(error).__name__, error)
            self._failed = True

    def _draw(self, trainer: L.Trainer, net: torch.nn.Module, images: torch.Tensor) -> None:
        points = points_of(net, images)
        if points is None:
            return
        from src.looking.pictures import picture  # with what reports load, which a run without pictures needn't

        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / NAME.format(trainer.current_epoch + 1)
        picture(points).save(path)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(KEY, [str(path)], step=trainer.global_step)
