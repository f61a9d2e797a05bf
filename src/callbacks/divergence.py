"""A run whose loss is no number any more stops, before it costs more hours or overwrites a good checkpoint."""

from typing import Any, cast

import lightning as L
import torch
from torch import Tensor

from src.runs.session import Diverged


class Divergence(L.Callback):
    """Watches the training loss, and before an epoch's checkpoints the weights too.

    What is not finite is noted where it is computed and read every `log_every_n_steps` batches: reading it after each
    would make the GPU wait.

    Raises:
        Diverged: in all ranks, whichever saw it.
    """

    def __init__(self) -> None:
        self.seen: Tensor | None = None  # the sum of the losses since the last look: as finite as each of them

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"].detach().float()
        self.seen = loss if self.seen is None else self.seen + loss
        every = cast(Any, trainer).log_every_n_steps
        if trainer.is_last_batch:
            # The last update of the epoch may have ruined them after a loss that was finite.
            parameters = [parameter.isfinite().all() for parameter in pl_module.parameters()]
            odd = ~self.seen.isfinite() | ~torch.stack(parameters).all()
            self._stop_if(odd, trainer, "the loss or the weights are")
        elif every and (batch_idx + 1) % every == 0:
            self._stop_if(~self.seen.isfinite(), trainer, "the loss is")

    def _stop_if(self, odd: Tensor, trainer: L.Trainer, what: str) -> None:
        self.seen = None
        if trainer.strategy.reduce_boolean_decision(bool(odd), all=False):
            raise Diverged(
                f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}: {what} not finite; the last "
                f"checkpoint is from before; lower recipe.base_lr or set recipe.clip_norm"
            )
