"""One seed per epoch, so that a run that resumes goes on as if nothing had happened."""

import random

import lightning as L
import numpy as np
import torch

from src.randomness import seed_from


class EpochSeed(L.Callback):
    """Seeds Python, NumPy and torch (drop path, mixup) from the run's seed, the epoch and the rank.

    Without it the generators would start anew in a resumed run, and its epochs differ from an unbroken run's.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seed = seed_from("epoch", self.seed, trainer.current_epoch, trainer.global_rank)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
