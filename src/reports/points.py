"""Where a run's points lie on a few test images: `points.npz` in its folder, in pixels of the image."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.reports.results import UNREADABLE

POINTS = "points.npz"


@dataclass(frozen=True)
class Block:
    """One deformable block.

    Attributes:
        reference: (P, xy), where its points start.
        points: (N images, G groups, P, xy), where keys are read.
    """

    reference: np.ndarray
    points: np.ndarray


@dataclass(frozen=True)
class Points:
    """A run's points on some test images.

    Attributes:
        images: (N, H, W, 3), bytes.
        blocks: by stage and number in the stage, such as "three.1", in the order of the network. Older files number
            the deformable blocks of a stage alone: "three.0" is the first of them, whichever block that is.
    """

    images: np.ndarray
    blocks: Mapping[str, Block]


def write_points(path: Path, points: Points) -> None:
    arrays: dict[str, np.ndarray] = {"images": points.images}
    for name, block in points.blocks.items():
        arrays[f"{name}/reference"] = block.reference.astype(np.float32)
        arrays[f"{name}/points"] = block.points.astype(np.float16)  # to a sixteenth of a pixel in images of 256
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_points(folder: Path) -> Points | None:
    """Those of the run in `folder`; None where there are none, or not whole."""
    try:
        with np.load(folder / POINTS, allow_pickle=False) as saved:
            names = [name.removesuffix("/reference") for name in saved.files if name.endswith("/reference")]
            blocks = {name: Block(saved[f"{name}/reference"], saved[f"{name}/points"]) for name in names}
            return Points(saved["images"], blocks)
    except UNREADABLE:
        return None
