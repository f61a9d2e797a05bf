"""Where runs read keys, as a page draws it: test images as PNG, points as whole tenths of a pixel."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from src.reports.page.shared import Shared
from src.reports.points import read_points
from src.studies.states import State

NUMBERS = 400_000  # coordinates in a page: some two megabytes


class Pictures:
    """Collects the points of runs while there is room for them.

    Attributes:
        images: data URIs, each once however many runs have looked at it.
        grids: reference points, likewise.
    """

    def __init__(self) -> None:
        self.images, self.grids, self.left = Shared(), Shared(), NUMBERS

    def of(self, state: State) -> dict[str, Any] | None:
        """Of a run; None if it has left no points or there is no room for them.

        Returns:
            `images`, numbers in `self.images`; `size`, height and width; `blocks`: name, `grid`, a number in
            `self.grids`, and `points`, by image and group, x and y by turns.
        """
        found = read_points(state.folder) if self.left > 0 else None
        if found is None or sum(block.points.size for block in found.blocks.values()) > self.left:
            return None
        self.left -= sum(block.points.size for block in found.blocks.values())
        return {
            "images": [self.images.number(_png(image)) for image in found.images],
            "size": list(found.images.shape[1:3]),
            "blocks": [
                {
                    "name": name,
                    "grid": self.grids.number(_tenths(block.reference.reshape(-1))),
                    "points": _tenths(block.points.reshape(*block.points.shape[:2], -1)),
                }
                for name, block in found.blocks.items()
            ],
        }


def _tenths(values: np.ndarray) -> Any:
    return np.rint(10 * values.astype(np.float64)).astype(int).tolist()


def _png(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
