"""Where a network's points lie on a few images. A run leaves them behind in `points.npz`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.data.base import ImageData
from src.models.attention.deformable import DeformableAttention
from src.models.looking import attentions, eager, recording
from src.reports.points import Block, Points
from src.runs.session import BEST

IMAGES = 3  # of the test set, the first ones
SIDE = 128  # pixels of a picture; larger images are shrunk to it


def points_on(net: nn.Module, data: ImageData, count: int = IMAGES) -> Points | None:
    """As `points_of`, on the first `count` test images."""
    dataset = data.dataset("test")
    return points_of(net, torch.stack([dataset[number][0] for number in range(min(count, data.length("test")))]))


def points_of(net: nn.Module, images: Tensor) -> Points | None:
    """Points of every deformable block on images (N, 3, H, W); None for networks without such blocks.

    The network stays in the mode it was in.
    """
    if not attentions(net, DeformableAttention):
        return None
    training, device = net.training, next(net.parameters()).device
    try:
        with torch.no_grad(), eager(net), recording(net, kind=DeformableAttention, weights=False) as looks:
            net.eval()(images.to(device))
    finally:
        net.train(training)

    side = min(SIDE, images.shape[-1])
    found: dict[str, Block] = {}
    for name, (look,) in looks.items():
        assert look.reference is not None
        reference, points = (_pixels(yx, look.map_size, side) for yx in (look.reference[0], look.points[:, :, 0]))
        found[name] = Block(reference, points)
    return Points(_pictures(images, side), found)


def _pixels(yx: Tensor, map_size: tuple[int, int], side: int) -> np.ndarray:
    """From -1..1, the centres of the border pixels of the map, to (x, y) in pixels of a picture."""
    size = yx.new_tensor(map_size)
    position = (yx.float() + 1) / 2 * (size - 1) + 0.5
    return (position * (side / size) - 0.5).flip(-1).cpu().numpy()


def _pictures(images: Tensor, side: int) -> np.ndarray:
    """Bytes (N, H, W, 3); each image's own least and greatest value are black and white."""
    if side < images.shape[-1]:
        images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return ((images - low) / (high - low).clamp_min(1e-6) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def of_run(record: Mapping[str, Any], count: int = IMAGES) -> Points | None:
    """As `points_on`, of a finished run with the weights that validation chose.

    Raises:
        OSError: its checkpoint isn't there.
    """
    from src.config import build, build_model

    net = build_model(record["config"])
    saved = torch.load(Path(record["folder"]) / BEST, weights_only=True, map_location="cpu", mmap=True)
    weights = {key.removeprefix("net."): value for key, value in saved["state_dict"].items() if key.startswith("net.")}
    net.load_state_dict(weights)
    return points_on(net, build(record["config"]["data"]), count)
