"""The networks whose steps are compared: ours, the published code's transcription, timm's of the same size."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.benchmarks.measure import saved_bytes
from src.models import upstream
from src.models.checkpointing import checkpoint_activations

TRANSCRIPTION, OURS, RECOMPUTED = "transcription", "datlab", "datlab, every block recomputed"
COMPILED = ", compiled"
NUM_CLASSES = 1000
AGREEMENT = 1e-3  # of logits, in units of the largest: float32 rounding of a whole network stays below 1e-5

FAMILIES = {"DAT-T": "v1", "DAT-T++": "v2"}  # by the release that published them
PEERS = {"swin_tiny": "swin_tiny_patch4_window7_224", "pvt_v2_b2": "pvt_v2_b2"}


@dataclass(frozen=True)
class Step:
    """Forward and backward of one network on one batch, in training mode and without dropped branches.

    Attributes:
        precision: "float32", or "bfloat16" for autocast.
    """

    net: nn.Module
    images: Tensor
    labels: Tensor
    precision: str

    def loss(self) -> Tensor:
        """Cross entropy of the batch."""
        device = self.images.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            return F.cross_entropy(self.net(self.images), self.labels)

    def __call__(self) -> None:
        self.net.zero_grad(set_to_none=True)
        self.loss().backward()

    def saved_bytes(self) -> int:
        """Kept for the gradient."""
        return saved_bytes(self.loss, self.net)


def transcription(family: str, *, pixels: int = 224) -> nn.Module:
    """The published network, transcribed.

    Raises:
        ValueError: this isn't a checkout of the project, which has it among its tests.
    """
    try:
        published = import_module("tests.reference.published_dat")
    except ImportError as error:
        raise ValueError(
            f"{error}: the transcription is in tests/reference; run this in a checkout of datlab"
        ) from None
    net: nn.Module = published.PublishedDAT(published_config(family, pixels), FAMILIES[family])
    return net


def published_config(family: str, pixels: int = 224) -> dict[str, object]:
    """The published configuration of the tiny network, without dropped branches, for images of this size."""
    found = import_module("tests.reference.published_dat").published_config(FAMILIES[family], "dat_tiny")
    return {**found, "drop_path_rate": 0.0, "img_size": pixels}


def ours(family: str, *, pixels: int = 224, recompute: bool = False) -> nn.Module:
    """Our network of the same configuration."""
    net = upstream.build(published_config(family, pixels), FAMILIES[family])
    if recompute:
        checkpoint_activations(net)
    return net


def peer(name: str, *, pixels: int = 224) -> nn.Module:
    """timm's network."""
    size: dict[str, Any] = {"img_size": pixels} if name == "swin_tiny" else {}
    return timm.create_model(PEERS[name], num_classes=NUM_CLASSES, **size)


def contestants(family: str, *, compiled: bool, quick: bool = False) -> dict[str, Callable[[], nn.Module]]:
    """By name, what builds the networks of a family and of its peers; the first is the baseline.

    Args:
        compiled: also ours and swin_tiny through torch.compile, which pays on GPUs.
        quick: leaves out the second peer.
    """
    found: dict[str, Callable[[], nn.Module]] = {
        TRANSCRIPTION: partial(transcription, family),
        OURS: partial(ours, family),
        RECOMPUTED: partial(ours, family, recompute=True),
    }
    found |= {f"timm {name}": partial(peer, name) for name in (list(PEERS)[:1] if quick else PEERS)}
    if compiled:
        for name in (OURS, "timm swin_tiny"):
            found[name + COMPILED] = partial(_compiled, found[name])
    return found


def _compiled(build: Callable[[], nn.Module]) -> nn.Module:
    net = build()
    net.compile()
    return net


def alike(nets: dict[str, nn.Module], images: Tensor) -> None:
    """Gives ours the weights of the transcription, and sees that they compute the same.

    Raises:
        RuntimeError: they don't; nothing is worth timing then.
    """
    weights = nets[TRANSCRIPTION].state_dict()
    with torch.no_grad():
        expected = nets[TRANSCRIPTION](images)
        for name, net in nets.items():
            if name.startswith(OURS):
                upstream.load_published(net, weights)
                error = ((net(images) - expected).abs().max() / expected.abs().max()).item()
                if error > AGREEMENT:
                    raise RuntimeError(f"{name} and the transcription differ by {error:.1e} of the largest logit")
