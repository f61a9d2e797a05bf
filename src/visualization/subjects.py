"""What is looked at: pictures in their own pixels, each beside what a network is given of it, and where that lies."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import transforms
from torchvision.datasets.folder import IMG_EXTENSIONS

from src.data.base import DataError, ImageData
from src.data.digits import MEAN, STD, Digits
from src.data.files import FileImages
from src.data.images import PlainImages
from src.data.small_images import SmallImages
from src.models.looking import to_pixels
from src.models.weights import few


@dataclass(frozen=True)
class Frame:
    """Where the network's square image lies in the picture, in the picture's pixels (0 is the edge of the first one).

    Attributes:
        left, top: its corner; negative where the network sees more than there is.
        width, height: its sides.
    """

    left: float
    top: float
    width: float
    height: float

    def to_picture(self, xy: np.ndarray) -> np.ndarray:
        """Places (..., xy) in the network's image, from 0 to 1, as pixels of the picture."""
        return np.array([self.left, self.top]) + np.asarray(xy) * np.array([self.width, self.height])

    def from_picture(self, xy: np.ndarray) -> np.ndarray:
        """The way back."""
        return (np.asarray(xy, dtype=float) - np.array([self.left, self.top])) / np.array([self.width, self.height])


@dataclass(frozen=True)
class Subject:
    """One image to look at.

    Attributes:
        name: for files and titles.
        picture: as it is, in its own pixels.
        image: (3, S, S), what the network is given.
        frame: where that lies in the picture.
    """

    name: str
    picture: Image.Image
    image: Tensor
    frame: Frame

    def shown(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the part of the picture to draw: what the network sees, and a little more."""
        frame, (wide, high) = self.frame, self.picture.size
        more = 0.06 * max(frame.width, frame.height)
        left, top = max(0, math.floor(frame.left - more)), max(0, math.floor(frame.top - more))
        right = min(wide, math.ceil(frame.left + frame.width + more))
        return left, top, right, min(high, math.ceil(frame.top + frame.height + more))

    def on_picture(self, positions: Tensor, map_size: tuple[int, int], reduction: int) -> np.ndarray:
        """Positions (..., yx) in [-1, 1] of a map to (..., xy) in pixels of the picture.

        Args:
            reduction: side of a pixel of the map in pixels of the network's image; its middle is the place.
        """
        pixels = to_pixels(positions.float(), map_size)
        places = (pixels + 0.5) * reduction / self.image.shape[-1]
        return self.frame.to_picture(places.flip(-1).numpy())

    def pixel_of(self, xy: tuple[float, float], map_size: tuple[int, int], reduction: int) -> int:
        """Which pixel of a map, row by row, holds a place in pixels of the picture.

        Raises:
            ValueError: the network doesn't see that place.
        """
        x, y = self.frame.from_picture(np.array(xy))
        wide, high = self.picture.size
        if not (0 <= x < 1 and 0 <= y < 1) or not (0 <= xy[0] < wide and 0 <= xy[1] < high):
            (left, top), (right, bottom) = self.frame.to_picture(np.array([[0, 0], [1, 1]]))
            raise ValueError(
                f"query {xy[0]:g},{xy[1]:g} is outside of what the network sees of {self.name}: x from "
                f"{max(left, 0):.0f} to {min(right, wide):.0f}, y from {max(top, 0):.0f} to {min(bottom, high):.0f}"
            )
        side = self.image.shape[-1] / reduction
        row, column = min(int(y * side), map_size[0] - 1), min(int(x * side), map_size[1] - 1)
        return row * map_size[1] + column


def from_files(files: Sequence[Path], data: ImageData) -> Iterator[Subject]:
    """Pictures, resized as `data` does with its test images.

    Raises:
        DataError: one can't be read.
    """
    transform, stems = transform_of(data), Counter(file.stem for file in files)
    for file in files:
        name = file.stem if stems[file.stem] == 1 else "-".join((file.parent.name, file.name))
        picture = _read(file)
        if picture is None:
            raise DataError(_unreadable([file]))
        yield Subject(name, picture, transform(picture), frame_of(transform, picture.size))


def refuse_unreadable(files: Sequence[Path]) -> None:
    """Reads each to its end, which is the only way to know: before the first is drawn.

    Raises:
        DataError: some can't be read as pictures; it names them.
    """
    if broken := [file for file in files if _read(file) is None]:
        raise DataError(_unreadable(broken))


def _read(file: Path) -> Image.Image | None:
    """The picture, upright; None if it can't be read."""
    try:
        with Image.open(file) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except Exception:  # Pillow's decoders raise what they like
        return None


def _unreadable(files: Sequence[Path]) -> str:
    """What is wrong, and the way out, in a line."""
    what, them = ("pictures", "them") if len(files) > 1 else ("a picture", "it")
    return f"{few(map(str, files))} can't be read as {what}; replace {them}, or leave {them} out"


def picture_files(path: Path) -> list[Path]:
    """The file, or the pictures right in the folder, in the order of their names.

    Raises:
        DataError: nothing is there.
    """
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in IMG_EXTENSIONS and p.name[0] != ".")
        if not found:
            raise DataError(f"image={path}: no picture in this folder; names end with {', '.join(IMG_EXTENSIONS)}")
        return found
    if not path.is_file():
        raise DataError(f"image={path} isn't there; check the path, relative ones start at {Path.cwd()}")
    return [path]


def from_tests(data: ImageData, numbers: Sequence[int]) -> Iterator[Subject]:
    """Test images of a data set, by number.

    Raises:
        DataError: there is no such number.
    """
    data.check()
    count, dataset = data.length("test"), data.dataset("test")
    for number in numbers:
        if not 0 <= number < count:
            raise DataError(f"images={number}: {data.name} has test images 0 to {count - 1}")
        image, _ = dataset[number]
        name = f"{data.name}-{number}"
        if isinstance(dataset, PlainImages):
            picture, _ = dataset.source[int(dataset.indices[number])]
            yield Subject(name, picture, image, frame_of(transform_of(data), picture.size))
        else:  # made as tensors
            bytes_of = ((image * STD + MEAN).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            picture = Image.fromarray(bytes_of)
            yield Subject(name, picture, image, Frame(0, 0, *picture.size))


def transform_of(data: ImageData) -> Any:
    """What a data set does to a picture before a network sees it, outside of training."""
    if isinstance(data, FileImages):
        return data.eval_transform()
    whole = transforms.Resize((data.image_size, data.image_size), transforms.InterpolationMode.BICUBIC)
    if isinstance(data, SmallImages):
        return transforms.Compose([whole, transforms.ToTensor(), transforms.Normalize(data.mean, data.std)])
    if isinstance(data, Digits):  # no photographs: ink on a black ground
        grey = transforms.Grayscale(3)
        return transforms.Compose([whole, grey, transforms.ToTensor(), transforms.Normalize((MEAN,) * 3, (STD,) * 3)])
    raise DataError(f"data={data.name} doesn't say how it resizes a picture; look at its test images, with images=0,1")


def frame_of(transform: Any, size: tuple[int, int]) -> Frame:
    """Where what comes out of torchvision's `Resize` and `CenterCrop` lies in a picture of `size`, width and height.

    Raises:
        ValueError: there is another step that moves pixels.
    """
    frame, (width, height) = Frame(0, 0, float(size[0]), float(size[1])), size
    for step in transform.transforms:
        if isinstance(step, transforms.Resize):
            side = step.size
            if isinstance(side, int) or len(side) == 1:  # the shorter side, as torchvision rounds the other
                side = side if isinstance(side, int) else side[0]
                longer = int(side * max(width, height) / min(width, height))
                width, height = (side, longer) if width <= height else (longer, side)
            else:
                height, width = side
        elif isinstance(step, transforms.CenterCrop):
            high, wide = step.size
            left, top = round((width - wide) / 2), round((height - high) / 2)
            x, y = frame.to_picture(np.array([left / width, top / height])).tolist()
            frame = Frame(x, y, frame.width * wide / width, frame.height * high / height)
            width, height = wide, high
        elif not isinstance(step, _KEEPS_PLACES) and type(step).__name__ not in ("MaybeToTensor", "MaybePILToTensor"):
            raise ValueError(f"{type(step).__name__} moves pixels, and it isn't known where to")
    return frame


_KEEPS_PLACES = (
    transforms.ToTensor,
    transforms.PILToTensor,
    transforms.ConvertImageDtype,
    transforms.Normalize,
    transforms.Grayscale,
)
