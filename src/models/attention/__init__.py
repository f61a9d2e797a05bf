"""Kinds of attention. Each maps (B, C, H, W), and the norm before it, to (B, C, H, W), and is built from a
stage's record. It is given the norm so that what that makes needn't be kept in training, where one layer reads it.

A kind is an object with `check(stage)`, which refuses a geometry that can't work before anything is built, and
`build(stage)`, which returns the module of one block. `conf/attention/all.yaml` names the kinds.
"""

from typing import Protocol

from torch import nn

from src.models.stage import Stage


class AttentionKind(Protocol):
    """What the backbone needs of a kind of attention."""

    def check(self, stage: Stage) -> None: ...

    def build(self, stage: Stage) -> nn.Module: ...
