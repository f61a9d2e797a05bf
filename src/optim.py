"""AdamW with the published decay groups, and a learning rate that warms up and follows a cosine, per step."""

import math
from typing import Any, cast

import torch
from torch import nn

from src.models.attention.neighborhood import NeighborhoodAttention
from src.models.local_encoding import DepthwiseEncoding
from src.models.position_bias import ContinuousBias


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameters in two groups: those that decay, and those that don't, by the published rule and the model's own."""
    exempt = published_exemptions(model)
    if hasattr(model, "no_weight_decay"):  # timm's way to say so, by name
        exempt |= {model.get_parameter(name) for name in cast(Any, model).no_weight_decay()}
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p not in exempt], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p in exempt], "weight_decay": 0.0},
    ]


def published_exemptions(model: nn.Module) -> set[nn.Parameter]:
    """What doesn't decay: norms, biases and position tables; matrices and kernels do.

    Quirk `exempt_by_name`: the published code exempts by the name `rpe_table`, which the depthwise encoding's kernel
    and the continuous bias's network also bear, and the table of neighborhood attention doesn't: that one decays.
    """
    exempt = {p for name, p in model.named_parameters() if p.ndim < 2 or name.endswith("bias_table")}
    for module in model.modules():
        if isinstance(module, DepthwiseEncoding | ContinuousBias):
            exempt |= set(module.parameters())
        elif isinstance(module, NeighborhoodAttention):
            exempt.discard(module.bias_table)
    return exempt


def warmup_cosine(
    optimizer: torch.optim.Optimizer, *, steps: int, warmup_steps: int, start: float, end: float
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear from `start` to 1 over `warmup_steps`, then half a cosine to `end` at `steps`; as parts of the peak rate.

    Raises:
        ValueError: the warm-up is no shorter than the training.
    """
    if warmup_steps >= steps:
        raise ValueError(f"warm-up of {warmup_steps} steps must be shorter than the {steps} steps of training")

    def factor(step: int) -> float:
        if step < warmup_steps:
            return start + (1 - start) * step / warmup_steps
        progress = min(1.0, (step - warmup_steps) / (steps - warmup_steps))
        return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
