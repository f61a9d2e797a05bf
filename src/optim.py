"""AdamW with the published decay groups, and a learning rate that warms up and follows a cosine, per step."""

import math

import torch
from torch import nn

from src.models.local_encoding import DepthwiseEncoding


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameters in two groups as published: matrices and kernels decay; norms, biases and position tables don't.

    Quirk `position_convolution_not_decayed`: the published code exempts by the name `rpe_table`, which the
    depthwise encoding's kernel also bears.
    """
    encodings = {p for m in model.modules() if isinstance(m, DepthwiseEncoding) for p in m.parameters()}
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1 and not name.endswith("bias_table") and parameter not in encodings
        groups[decays].append(parameter)
    return [
        {"params": groups[True], "weight_decay": weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]


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
