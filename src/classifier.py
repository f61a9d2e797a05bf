"""The training task: an image classifier. It knows losses and metrics, not the network."""

from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.plugins.precision import MixedPrecision
from timm.data import Mixup
from torch import Tensor, nn
from torchmetrics import CatMetric, MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from src.optim import decay_groups, warmup_cosine
from src.recipe import Recipe

TOP5_FROM = 11  # classes; with fewer, five guesses out of them say little


class ImageClassifier(L.LightningModule):
    """Fits any `net` from images (B, 3, H, W) to logits (B, num_classes).

    Logs `{train,val,test}/loss`, `{val,test}/acc1`, with enough classes `acc5`, and per class at the end. All
    accuracies are in 0..1.

    Attributes:
        predictions: after testing, labels and predicted classes of the test images in their order.
    """

    def __init__(self, net: nn.Module, *, recipe: Recipe, num_classes: int):
        super().__init__()
        self.net, self.recipe = net, recipe
        self.mix = None
        if recipe.mixup or recipe.cutmix:
            self.mix = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                label_smoothing=recipe.label_smoothing,
                num_classes=num_classes,
            )
        self.metrics = nn.ModuleDict()
        for split in ("val_", "test_"):  # with an underscore: "test" alone would hide a method of ModuleDict's
            metrics: dict[str, nn.Module] = {
                "loss": MeanMetric(),
                "acc1": MulticlassAccuracy(num_classes, average="micro"),
            }
            if num_classes >= TOP5_FROM:
                metrics["acc5"] = MulticlassAccuracy(num_classes, average="micro", top_k=5)
            self.metrics[split] = nn.ModuleDict(metrics)
        self.per_class = MulticlassAccuracy(num_classes, average=None)
        self.answers = CatMetric()
        self.predictions: dict[str, np.ndarray] = {}

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        if self.mix is None:
            loss = F.cross_entropy(self.net(images), labels, label_smoothing=self.recipe.label_smoothing)
        else:
            images, shares = self.mix(images, labels)  # which smooths the labels itself
            loss = F.cross_entropy(self.net(images), shares)
        every = cast(Any, self.trainer).log_every_n_steps
        if every and (self.global_step + 1) % every == 0:  # in other steps Lightning's bookkeeping would be for nothing
            over_ranks = self.trainer.strategy.reduce(loss.detach().clone(), reduce_op="mean")
            self.log("train/loss", cast(Tensor, over_ranks), prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        logits = self._evaluate("test", batch)
        self.per_class.update(logits, batch[1])
        self.answers.update(torch.stack([batch[1], logits.argmax(dim=1)], dim=1))

    def on_test_epoch_end(self) -> None:
        for number, accuracy in enumerate(self.per_class.compute().tolist()):
            self.log(f"test/acc1_class/{number}", accuracy, rank_zero_only=True)
        self.per_class.reset()
        # Ranks saw the images r, r + world, ...; gathered they lie rank after rank.
        answers = self.answers.compute().long().cpu().numpy()
        self.answers.reset()
        world = self.trainer.world_size
        order = np.argsort(np.concatenate([np.arange(len(answers))[rank::world] for rank in range(world)]))
        self.predictions = {"label": answers[order, 0], "predicted": answers[order, 1]}

    def save_predictions(self, path: Path) -> None:
        """Labels and predicted classes of the test images, for comparing variants image by image."""
        with path.open("wb") as file:
            np.savez_compressed(file, label=self.predictions["label"], predicted=self.predictions["predicted"])

    def _evaluate(self, split: str, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        logits = self.net(images)
        losses = F.cross_entropy(logits, labels, reduction="none")
        for name, metric in cast(nn.ModuleDict, self.metrics[f"{split}_"]).items():
            assert isinstance(metric, Metric)
            if name == "loss":
                metric.update(losses)
            else:
                metric.update(logits, labels)
            self.log(f"{split}/{name}", metric, on_step=False, on_epoch=True, prog_bar=name == "acc1")
        return logits

    def configure_optimizers(self) -> Any:
        peak = self.recipe.peak_lr(self.trainer.world_size)
        groups = decay_groups(self.net, self.recipe.weight_decay)
        # Lightning doesn't clip gradients for a fused optimiser under mixed precision.
        fused = not isinstance(self.trainer.precision_plugin, MixedPrecision)
        optimizer = torch.optim.AdamW(groups, lr=peak, betas=self.recipe.betas, eps=1e-8, fused=fused)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = warmup_cosine(
            optimizer,
            steps=steps,
            warmup_steps=round(steps * self.recipe.warmup_epochs / self.recipe.epochs),
            start=self.recipe.warmup_lr / self.recipe.base_lr,
            end=self.recipe.min_lr / self.recipe.base_lr,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
