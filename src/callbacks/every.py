"""Which epochs a callback looks at."""

import lightning as L


def due(trainer: L.Trainer, every: int) -> bool:
    """Whether the validation at work ends an epoch of a training that is a multiple of `every`, or the last one.

    Args:
        every: epochs; 0 is never.
    """
    if not every or trainer.sanity_checking or trainer.state.fn != "fit":
        return False
    epoch = trainer.current_epoch + 1
    return epoch % every == 0 or epoch == trainer.max_epochs
