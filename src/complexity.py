"""What a network costs: parameters and multiply-accumulates, counted without computing anything."""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torchvision.ops  # noqa: F401 (makes torch.ops.torchvision known)
from torch import Tensor, nn
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
    multiply-accumulates too, count part of them and are up to 1 % higher. Products with keys that a module computes
    only to mask them (`masked_macs`) don't count.

    Args:
        net: a network on the meta device.
    """
    masked = 0

    def add_masked(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal masked
        masked += cast(Any, module).masked_macs(*given[0].shape[2:])

    hooks = [m.register_forward_pre_hook(add_masked) for m in net.modules() if hasattr(m, "masked_macs")]
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.torchvision.deform_conv2d: _deform_conv2d})
    try:
        with counter:  # with gradients: without them, torch's counter stumbles over some of timm's modules
            net.eval()(torch.zeros(1, 3, image_size, image_size, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() // 2 - masked


def _deform_conv2d(x: list[int], weight: list[int], *args: Any, out_shape: list[int], **kwargs: Any) -> int:
    """As a convolution: 2 x kernel x output pixels."""
    return 2 * math.prod(weight) * math.prod(out_shape) // out_shape[1]
