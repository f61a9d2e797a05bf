"""Memory that is used again for the next block: what is asked for anew, the system first has to fill with zeros."""

import torch
from torch import Tensor


class Scratch:
    """Tensors by name, each overwritten when its name is asked for again."""

    def __init__(self, dtype: torch.dtype, device: torch.device):
        self.dtype, self.device = dtype, device
        self._kept: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """A contiguous tensor with unknown values."""
        size = 1
        for n in shape:
            size *= n
        kept = self._kept.get(name)
        if kept is None or len(kept) < size:
            kept = self._kept[name] = torch.empty(size, dtype=self.dtype, device=self.device)
        return kept[:size].view(shape)
