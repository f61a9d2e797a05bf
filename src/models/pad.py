"""Maps that windows, patches or cells don't tile: padded below and to the right, and cut back afterwards."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true


def tiled(map_size: Sequence[int], side: int) -> bool:
    """Whether cells of `side` x `side` pixels tile the map, for certain: while torch traces a network for all sizes it
    isn't, since an answer for the size at hand would bind the trace to it."""
    return all(statically_known_true(n % side == 0) for n in map_size)


def pad_to_multiple(x: Tensor, side: int) -> Tensor:
    """(B, C, H, W) with zeros below and to the right, so that both sides are multiples of `side`."""
    if tiled(x.shape[2:], side):
        return x
    # In whole cells rather than as a remainder: torch then knows that the padded sides are multiples.
    down, right = (-(-n // side) * side - n for n in x.shape[2:])
    return F.pad(x, (0, right, 0, down))
