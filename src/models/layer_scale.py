"""How loudly a branch speaks: a factor for each channel of what attention or feed-forward adds (CaiT, eq. 3).

A variant is built as `layer_scale(dim)` and maps (B, C, H, W) to (B, C, H, W).
"""

import torch
from torch import Tensor, nn


class LearnedScale(nn.Module):
    """A learnt factor for each channel.

    Args:
        initial: of all factors; small, so that a deep network begins near the identity.

    Raises:
        ValueError: `initial` isn't positive.
    """

    def __init__(self, dim: int, *, initial: float):
        super().__init__()
        if initial <= 0:
            raise ValueError(f"layer_scale.initial is {initial}; it must be above 0 (layer_scale=none for no factor)")
        self.initial = initial
        self.factor = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.factor, self.initial)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor[:, None, None]


class NoScale(nn.Module):
    """Branches are added as they are."""

    def __init__(self, dim: int):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x
