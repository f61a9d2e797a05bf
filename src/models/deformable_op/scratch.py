"""Memory that is used again for the next block: what is asked for anew, the system first has to fill with zeros."""

import math

import torch
from torch import Tensor


class Scratch:
    """Tensors by name, each overwritten when its name is asked for again."""

    def __init__(self, dtype: torch.dtype, device: torch.device):
        self.dtype, self.device = dtype, device
        self._kept: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """A contiguous tensor with unknown values; a name is always of one type."""
        size = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or len(kept) < size:
            kept = self._kept[name] = torch.empty(size, dtype=dtype or self.dtype, device=self.device)
        return kept[:size].view(shape)
