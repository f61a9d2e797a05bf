"""Images that say where their object is: digit scenes, or any folder of images and masks.

Nothing here is imported by a data set, so that no run's identity depends on it.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from src.data.base import DataError, ImageData, Split
from src.data.digits import STROKE, Digits, DigitScenes
from src.data.images import Transform
from src.data.scenes import render_layers
from src.looking.quantities import OBJECT
from src.visualization.subjects import transform_of

LAYOUT = "a folder of masks needs images/NAME.* and masks/NAME.*, a mask being above 0 where its object is"


@dataclass(frozen=True)
class MaskedImages:
    """Images and what is where in them.

    Attributes:
        images: (N, 3, S, S), as a network is given them.
        regions: by name, each (N, S, S) bool; `object` is always there.
    """

    images: Tensor
    regions: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.images)

    def digest(self) -> str:
        """Ten hexadecimal digits of all pixels and regions."""
        found = hashlib.sha256(self.images.numpy().tobytes())
        for name, region in self.regions.items():
            found.update(name.encode() + region.numpy().tobytes())
        return found.hexdigest()[:10]

    def batches(self, size: int) -> Iterator[Tensor]:
        return iter(self.images.split(size))


def masked_images(data: ImageData, *, split: Split, count: int, folder: Path | None = None) -> MaskedImages:
    """The first `count` images of a data set that knows its objects, or of a folder, seen as `data` sees its own.

    Raises:
        DataError: the data set has no masks, or the folder isn't laid out as it must be.
    """
    if folder is not None:
        return _of_folder(folder, data, count)
    if isinstance(data, Digits):
        return digit_scenes(data, split=split, count=count)
    raise DataError(f"{data.name} doesn't say where its objects are; use data=digits, or --masks FOLDER: {LAYOUT}")


def digit_scenes(data: Digits, *, split: Split, count: int) -> MaskedImages:
    """The first scenes of a split, their pixels those that the network is tested with.

    Regions:

    - `object`: the strokes of the whole digit.
    - `box`: the tight box round them: near the object, and what boxes of detection call an object.
    - `fragments`: the strokes of other digits' pieces, where no stroke of the whole digit is: ink that is no object.
    """
    scenes = data.dataset(split)
    assert isinstance(scenes, DigitScenes)
    plan = scenes.plan(list(range(min(count, len(scenes)))))
    layers = render_layers(plan, scenes.ink, scenes.image_size)
    digit = layers[:, 0] > STROKE
    fragments = (layers[:, 1:] > STROKE).any(dim=1) & ~digit
    return MaskedImages(scenes.images(layers), {OBJECT: digit, "box": boxes(digit), "fragments": fragments})


def boxes(masks: Tensor) -> Tensor:
    """The tight box of each mask (N, S, S), filled."""
    rows, columns = masks.any(dim=2), masks.any(dim=1)
    return _between(rows)[:, :, None] & _between(columns)[:, None, :]


def _between(any_: Tensor) -> Tensor:
    """True from the first to the last True of each row of (N, S)."""
    after_first = any_.cummax(dim=1).values
    before_last = any_.flip(1).cummax(dim=1).values.flip(1)
    return after_first & before_last


def _of_folder(folder: Path, data: ImageData, count: int) -> MaskedImages:
    transform = transform_of(data)
    pairs = list(_pairs(folder))[:count]
    read = [_seen(image, mask, transform) for image, mask in pairs]
    images, masks = (torch.stack(parts) for parts in zip(*read, strict=True))
    return MaskedImages(images, {OBJECT: masks, "box": boxes(masks)})


def _pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Images and their masks, in the order of their names."""
    found = {}
    for part in ("images", "masks"):
        if not (folder / part).is_dir():
            raise DataError(f"no folder {folder / part}; {LAYOUT}")
        found[part] = {path.stem: path for path in sorted((folder / part).iterdir()) if path.name[0] != "."}
    if not found["images"]:
        raise DataError(f"no images in {folder / 'images'}; {LAYOUT}")
    for stem, image in found["images"].items():
        if stem not in found["masks"]:
            raise DataError(f"{image} has no mask {folder / 'masks' / stem}.*; {LAYOUT}")
        yield image, found["masks"][stem]


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except OSError as error:
        raise DataError(f"cannot read {path} ({error}); replace or delete the file") from None


def _seen(image: Path, mask: Path, transform: Transform) -> tuple[Tensor, Tensor]:
    """The mask goes the way of its image, so that it lies where the object does, and is cut at half."""
    picture, values = _open(image).convert("RGB"), np.asarray(_open(mask))  # of a palette its numbers
    if picture.size != (values.shape[1], values.shape[0]):
        raise DataError(
            f"{mask} is {values.shape[1]}x{values.shape[0]} pixels and {image} {picture.width}x{picture.height}; "
            f"give a mask of its image's size"
        )
    colours = values[..., None] if values.ndim == 2 else values[..., : 1 if values.shape[-1] < 3 else 3]  # no alpha
    on = Image.fromarray((colours > 0).any(axis=-1).astype(np.uint8) * 255).convert("RGB")
    black, white = (transform(Image.new("RGB", picture.size, (shade,) * 3))[0] for shade in (0, 255))
    return transform(picture), transform(on)[0] > (black + white) / 2
