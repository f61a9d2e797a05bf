"""Which implementation of deformable attention is used, and why."""

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from src.models import bilinear
from src.models.deformable_op.bias_table import BiasTable

log = logging.getLogger(__name__)

NAMES = ("auto", "reference", "dense", "fused", "triton")

# Where blocks pay on a processor: tensors of all scores would be larger than what a process keeps of its freed memory
# (32 MiB, `src/freed_memory.py`), and the system would fill them with zeros each time, which takes as long as the work
# itself; and rows are long enough for the processor's instructions.
SCORES, KEYS = 2**23, 256  # scores of all heads and images; keys
HEAD_DIMS = (16, 32, 64, 128)  # of Triton's matrix products
UNCOMPILED = {"dense": "torch.compile decides itself what is kept", "fused": "torch.compile can't trace fused"}


class Choice(NamedTuple):
    """A name of NAMES but "auto", and what to say of it; nothing where it is what was asked for or to be expected."""

    kernel: str
    reason: str = ""


def check(name: str) -> str:
    """`name`, if there is such an implementation.

    Raises:
        ValueError: there is none.
    """
    if name not in NAMES:
        raise ValueError(f"deformable_kernel is {name!r}; it must be one of {', '.join(NAMES)}")
    return name


def check_run(name: str, *, accelerator: str, deterministic: bool, compiled: bool) -> None:
    """Refuses what a run can't do, before it begins.

    Args:
        accelerator: `trainer.accelerator`.
        deterministic: gradients must be summed in a fixed order.
        compiled: the network is given to torch.compile.

    Raises:
        ValueError: one line with the way out.
    """
    check(name)
    if name == "triton":
        missing = "needs CUDA, which the trainer's accelerator is not" if accelerator == "cpu" else _missing()
        if missing:
            raise ValueError(f"deformable_kernel is triton, which {missing}; choose auto, fused, dense or reference")
        if deterministic:
            raise ValueError(
                "deformable_kernel is triton, which sums gradients in no fixed order, but trainer.deterministic is "
                "true; choose auto or reference"
            )
    if name in UNCOMPILED and compiled:
        raise ValueError(f"deformable_kernel is {name}, but {UNCOMPILED[name]}; choose auto, or compile=false")


def choose(name: str, q: Tensor, bias: BiasTable) -> Choice:
    """For queries (B, heads, H * W, d).

    Costs are counted, and programs exported, by the definition, whatever the name.

    Raises:
        ValueError: `name` can't do it.
    """
    if q.is_meta or torch.compiler.is_exporting():
        return Choice("reference")
    if name == "auto":
        return _auto(q, bias)
    if name == "triton" and (unable := _unable(q)):
        raise ValueError(f"deformable_kernel is triton, which {unable}; choose auto, fused, dense or reference")
    if name in UNCOMPILED and torch.compiler.is_compiling():
        return Choice("reference", UNCOMPILED[name])
    return Choice(name)


def _auto(q: Tensor, bias: BiasTable) -> Choice:
    if q.is_cuda:
        if torch.are_deterministic_algorithms_enabled():
            return Choice("reference", "triton sums gradients in no fixed order, and determinism is asked for")
        unable = _unable(q)
        return Choice(_whole(bias), f"triton {unable}") if unable else Choice("triton")
    if torch.compiler.is_compiling():
        return Choice("reference", UNCOMPILED["fused"])
    if q.device.type != "cpu":
        return Choice("reference")
    keys = bias.points.shape[2] * bias.points.shape[3]
    whole = _whole(bias)
    if keys < KEYS or (whole == "dense" and q.shape[:3].numel() * keys <= SCORES):
        return Choice(whole)
    return Choice("fused")  # which is far faster than reading by `gather`, too


def _whole(bias: BiasTable) -> str:
    """Who computes all scores at once: `dense` would read by `gather` twice, and keeps what a compiler wouldn't."""
    return "dense" if bilinear.by_grid_sample(bias.read) and not torch.compiler.is_compiling() else "reference"


def _unable(q: Tensor) -> str:
    """Why Triton can't, or nothing."""
    if q.shape[-1] not in HEAD_DIMS:
        return f"needs heads of {', '.join(map(str, HEAD_DIMS))} channels, and these have {q.shape[-1]}"
    if q.dtype == torch.float64:
        return "computes in float32, and these are float64"
    if not q.is_cuda and not interpreted():
        return f"needs CUDA, and these are on {q.device.type}"
    return _missing()


def _missing() -> str:
    """What Triton lacks here, or nothing."""
    if importlib.util.find_spec("triton") is None:
        return "isn't installed"
    return "" if torch.cuda.is_available() or interpreted() else "needs CUDA, which isn't there"


def interpreted() -> bool:
    """Triton's kernels are run by its interpreter, in tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


_used: set[str] = set()
_said: set[str] = set()


@torch.compiler.assume_constant_result
def note(kernel: str, reason: str) -> None:
    """Remembers what was used, also while torch.compile traces; says a reason once."""
    _used.add(kernel)
    if reason and reason not in _said:
        _said.add(reason)
        log.info("deformable attention by %s: %s", kernel, reason)


@contextmanager
def watched() -> Iterator[set[str]]:
    """The implementations that are used meanwhile."""
    _used.clear()
    _said.clear()
    yield _used
