"""What the offsets do: how far points move, how many leave the map, how strongly their network learns."""

from collections import defaultdict
from contextlib import ExitStack
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from src.models.attention.deformable import DeformableAttention
from src.models.looking import Look, eager, recording

MEASURED_IMAGES = 16  # of the first validation batch; the quantiles hardly move with more


class OffsetDiagnostics(L.Callback):
    """Logs, for each deformable stage, over its blocks:

    - `offset/<stage>/g<group>/mean_px` and `p95_px`: distance of points from their reference points in pixels of
      the input image, on the first validation images;
    - `offset/<stage>/g<group>/outside`: share of points off the map, where zeros are read;
    - `offset/<stage>/grad_norm`: norm of the gradient of the offset networks, every `every` steps.
    """

    def __init__(self, *, every: int) -> None:
        self.every = every
        self._recording = ExitStack()
        self._looks: dict[str, list[Look]] = {}
        self._distances: dict[str, list[Tensor]] = defaultdict(list)
        self._outside: dict[str, list[Tensor]] = defaultdict(list)

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx or trainer.sanity_checking:
            return
        watch = recording(pl_module, kind=DeformableAttention, weights=False, images=MEASURED_IMAGES)
        self._recording.enter_context(eager(pl_module))
        self._looks = self._recording.enter_context(watch)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._recording.close()
        for (stage, _), (look,) in zip(deformable_blocks(pl_module), self._looks.values(), strict=False):
            self._measure(stage, look, image_size=batch[0].shape[-1])
        self._looks = {}

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for key, distances in self._distances.items():
            distance = torch.cat(distances)
            pl_module.log(f"offset/{key}/mean_px", distance.mean(), rank_zero_only=True)
            pl_module.log(f"offset/{key}/p95_px", distance.quantile(0.95), rank_zero_only=True)
            pl_module.log(f"offset/{key}/outside", torch.cat(self._outside[key]).mean(), rank_zero_only=True)
        self._distances.clear()
        self._outside.clear()

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        if not self.every or (trainer.global_step + 1) % self.every:  # as Lightning counts what it writes
            return
        gradients: dict[str, list[Tensor]] = defaultdict(list)
        for stage, attention in deformable_blocks(pl_module):
            gradients[stage] += [p.grad for p in attention.offset.parameters() if p.grad is not None]
        for stage, grads in gradients.items():
            norm = torch.nn.utils.get_total_norm(grads) if grads else torch.zeros(())
            pl_module.log(f"offset/{stage}/grad_norm", norm, rank_zero_only=True)

    def _measure(self, stage: str, look: Look, image_size: int) -> None:
        points = look.points[:, :, 0]
        pixel = points.new_tensor([image_size / n for n in look.map_size])
        distance = (look.moved()[:, :, 0] * pixel).norm(dim=-1)
        outside = (points.abs() > 1).any(dim=-1).float()
        for group in range(points.shape[1]):
            self._distances[f"{stage}/g{group}"].append(distance[:, group].flatten())
            self._outside[f"{stage}/g{group}"].append(outside[:, group].flatten())


def deformable_blocks(module: nn.Module) -> list[tuple[str, DeformableAttention]]:
    """(stage name, attention) of every deformable block in order; none in other networks."""
    found = []
    for name, part in module.named_modules():
        if isinstance(part, DeformableAttention):
            path = name.split(".")
            found.append((path[path.index("stages") + 1] if "stages" in path else name, part))
    return found
