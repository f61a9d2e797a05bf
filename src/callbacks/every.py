"""Which epochs a callback looks at, on which process."""

import lightning as L
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy


def due(trainer: L.Trainer, every: int) -> bool:
    """Whether the validation at work ends an epoch of a training that is a multiple of `every`, or the last one.

    On rank zero, and only where it has the whole network: not under strategies that split weights over the ranks.

    Args:
        every: epochs; 0 is never.
    """
    if not every or trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
        return False
    if not isinstance(trainer.strategy, DDPStrategy | SingleDeviceStrategy):
        return False
    epoch = trainer.current_epoch + 1
    return epoch % every == 0 or epoch == trainer.max_epochs
