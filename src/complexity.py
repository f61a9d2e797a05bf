"""What a network costs: parameters and multiply-accumulates, counted without computing anything."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """A network without weights: shapes only, so that any size is built in no time and no memory."""
    with torch.device("meta"):
        return build()


def count_parameters(net: nn.Module) -> int:
    """Trainable numbers."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def count_macs(net: nn.Module, image_size: int) -> int:
    """Multiply-accumulates of one image: matrix products and convolutions, as torch counts them.

    Norms, activations, softmax and bilinear sampling are left out; published FLOPs, which are such
    multiply-accumulates too, count part of them and are up to 1 % higher.

    Args:
        net: a network on the meta device.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        net.eval()(torch.zeros(1, 3, image_size, image_size, device="meta"))
    return counter.get_total_flops() // 2
