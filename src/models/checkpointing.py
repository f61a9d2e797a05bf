"""Activations computed twice in place of being kept: less memory in training for about a third more time.

It changes no result: masks of drop path are drawn again from the same random numbers.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Blocks(nn.Sequential):
    """The blocks of a stage.

    Attributes:
        checkpointed: of each block only its input is kept, and the rest is computed again for the gradient.
    """

    checkpointed = False

    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            recomputed = self.checkpointed and torch.is_grad_enabled()
            x = checkpoint(block, x, use_reentrant=False) if recomputed else block(x)
        return x


def checkpoint_activations(net: nn.Module) -> None:
    """Switches it on for a network of ours or of timm's.

    Raises:
        ValueError: the network doesn't know how.
    """
    switch = getattr(net, "set_grad_checkpointing", None)
    try:
        if switch is None:
            raise AssertionError("it has no set_grad_checkpointing")
        switch(True)
    except AssertionError as error:  # how timm's networks say no
        raise ValueError(f"activation_checkpointing must be false for {type(net).__name__}: {error}") from None
