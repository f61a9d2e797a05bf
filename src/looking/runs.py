"""A finished run measured: the network before training, after each epoch whose weights were kept, and as chosen.

What is found lies in the run's folder, image by image, so that nothing is measured twice.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from src.callbacks.kept_weights import NAME as KEPT
from src.config import build_model
from src.looking.masks import MaskedImages
from src.looking.measures import MEASURES, keys_of, measure
from src.reports.results import UNREADABLE
from src.runs.record import replacing
from src.runs.session import BEST, CHECKPOINT

log = logging.getLogger(__name__)

FILE = "where_it_looks.npz"


@dataclass(frozen=True)
class Images:
    """Which images were looked at."""

    data: str
    split: str
    count: int
    digest: str


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        chosen: the epoch, counted from 1, whose weights validation chose.
        values: by epoch (0 is before training), block and region, (N, G, measures).
    """

    name: str
    seed: int
    identity: str
    images: Images
    chosen: int
    values: Mapping[tuple[int, str, str], np.ndarray]


def measured(record: Mapping[str, Any], images: MaskedImages, about: Images, *, anew: bool = False) -> Measured:
    """What is in the run's folder, or what is measured now.

    Args:
        anew: measure also what was measured before.

    Raises:
        OSError: its chosen weights aren't there, or the disk is full.
        CannotLook: its network has no deformable block.
    """
    folder = Path(record["folder"])
    if not anew and (found := _read(folder, record, about)) is not None:
        return found
    chosen, values = int(record["metrics"]["best_epoch"]) + 1, {}
    for epoch, net in networks(record):
        for block, keys in keys_of(net, images).items():
            for region, mask in images.regions.items():
                found_here = measure(keys, mask)
                values[epoch, block, region] = torch.stack([found_here[name] for name in MEASURES], -1).float().numpy()
    result = Measured(record["name"], record["seed"], record["identity"], about, chosen, values)
    _write(folder, result)
    return result


def networks(record: Mapping[str, Any]) -> Iterator[tuple[int, nn.Module]]:
    """Epochs, counted from 1, and the network with their weights; 0 with those that it began with."""
    net, folder = build_model(record["config"]), Path(record["folder"])
    yield 0, net
    chosen = int(record["metrics"]["best_epoch"]) + 1
    for epoch in range(1, int(record["metrics"]["epochs"]) + 1):
        kept = folder / CHECKPOINT.parent / KEPT.format(epoch)
        if epoch == chosen:
            net.load_state_dict(_best(folder))
        elif kept.exists():
            net.load_state_dict(load_file(kept))
        else:
            continue
        yield epoch, net


def _best(folder: Path) -> dict[str, torch.Tensor]:
    saved = torch.load(folder / BEST, weights_only=True, map_location="cpu", mmap=True)
    return {key.removeprefix("net."): value for key, value in saved["state_dict"].items() if key.startswith("net.")}


def _write(folder: Path, result: Measured) -> None:
    arrays = {"/".join(map(str, key)): values for key, values in result.values.items()}
    about = {"images": asdict(result.images), "identity": result.identity, "measures": MEASURES}
    with replacing(folder / FILE) as file:
        np.savez_compressed(file, about=json.dumps(about), **arrays)  # type: ignore[arg-type]


def _read(folder: Path, record: Mapping[str, Any], about: Images) -> Measured | None:
    """None where there is nothing, nothing whole, or something about other images or measures."""
    try:
        with np.load(folder / FILE, allow_pickle=False) as saved:
            said = json.loads(str(saved["about"]))
            if said != {"images": asdict(about), "identity": record["identity"], "measures": list(MEASURES)}:
                return None
            values = {_key(name): saved[name] for name in saved.files if name != "about"}
    except UNREADABLE:
        return None
    chosen = int(record["metrics"]["best_epoch"]) + 1
    return Measured(record["name"], record["seed"], record["identity"], about, chosen, values)


def _key(name: str) -> tuple[int, str, str]:
    epoch, block, region = name.split("/")
    return int(epoch), block, region
