"""Real handwritten digits in cluttered scenes: small, offline, and a task of finding where to look."""

import hashlib
from collections.abc import Sequence
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from src.data.base import DataError, ImageData, Split
from src.data.scenes import GRID, REFERENCE_CANVAS, ScenePlan, plan_scenes, render_layers
from src.data.splits import stratified_split
from src.randomness import generator_from

SOURCE_SIZES: dict[Split, int] = {"train": 1197, "val": 300, "test": 300}  # of the 1797 digits

# Mean and standard deviation of the ink over all pixels of 8192 training scenes (seed 0, epochs 0 and 1) with
# 3 fragments, scales 4 to 6, at 64 pixels. Constants, so that an image does not depend on the data config.
MEAN, STD = 0.1726, 0.2975

STROKE = 0.5  # ink above which a pixel belongs to the digit


class Scene(NamedTuple):
    """One scene with its ground truth.

    Attributes:
        image: (3, S, S) normalised.
        mask: (S, S) bool, the strokes of the whole digit.
        box: (x0, y0, x1, y1) in pixels, the tight box of `mask`; x1 and y1 are exclusive.
    """

    image: Tensor
    label: int
    mask: Tensor
    box: tuple[int, int, int, int]


@cache
def source_digits(split: Split) -> tuple[Tensor, Tensor, Tensor]:
    """Ink (M, 8, 8) in 0..1, labels (M,) and rows (M,) in scikit-learn's `load_digits`, of one split."""
    images, labels = load_digits()
    parts = stratified_split(labels, list(SOURCE_SIZES.values()))
    rows = dict(zip(SOURCE_SIZES, parts, strict=True))[split]
    ink = torch.from_numpy(images[rows]).float() / 16
    return ink, torch.from_numpy(labels[rows]).long(), torch.from_numpy(rows)


@cache
def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Ink (1797, 8, 8) in 0..16 and labels (1797,): the file that `sklearn.datasets.load_digits` reads.

    Read here, since importing `sklearn.datasets`, and SciPy and pandas with it, takes every run two seconds.
    """
    installed = find_spec("sklearn")
    assert installed is not None and installed.origin is not None
    rows = np.loadtxt(Path(installed.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)


class DigitScenes(Dataset):
    """Scenes of one split, rendered when asked for.

    Args:
        length: scenes per epoch.
        keys: what the scenes depend on besides their number.
        device: where they are rendered.
    """

    def __init__(
        self,
        split: Split,
        *,
        length: int,
        keys: tuple[int | str, ...],
        image_size: int,
        digit_scale: Sequence[float],
        fragments: int,
        fragment_size: int,
        device: torch.device,
    ):
        self.ink, self.labels, _ = (tensor.to(device) for tensor in source_digits(split))
        self.length, self.keys, self.image_size = length, keys, image_size
        self.digit_scale, self.fragments, self.fragment_size = digit_scale, fragments, fragment_size
        self._planned: tuple[int, ScenePlan] | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: list[int]) -> list[tuple[Tensor, int]]:
        """A whole batch at once, as DataLoader asks for it where it can."""
        images, labels = self.batch(numbers)
        return list(zip(images, labels.tolist(), strict=True))

    def batch(self, numbers: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) and labels (B,) of `numbers`, which are of one epoch and on the CPU."""
        plan = self.plan(numbers)
        return self.images(render_layers(plan, self.ink, self.image_size)), self.labels[plan.source[:, 0]]

    def scene(self, number: int) -> Scene:
        plan = self.plan([number])
        layers = render_layers(plan, self.ink, self.image_size)
        mask = layers[0, 0] > STROKE
        y, x = mask.nonzero(as_tuple=True)
        box = (int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
        return Scene(self.images(layers)[0], int(self.labels[plan.source[0, 0]]), mask, box)

    def plan(self, numbers: Sequence[int] | Tensor) -> ScenePlan:
        """The plans of `numbers`, all of one epoch, which is planned on the CPU whatever renders it."""
        numbers = torch.as_tensor(numbers)
        epoch = int(numbers[0]) // self.length
        if self._planned is None or self._planned[0] != epoch:
            self._planned = epoch, self._plan_epoch(epoch).to(self.ink.device)
        return self._planned[1][(numbers - epoch * self.length).to(self.ink.device)]

    def _plan_epoch(self, epoch: int) -> ScenePlan:
        return plan_scenes(
            self.length,
            sources=len(self.ink),
            digit_scale=self.digit_scale,
            fragments=self.fragments,
            fragment_size=self.fragment_size,
            generator=generator_from("scenes", *self.keys, epoch),
        )

    def images(self, layers: Tensor) -> Tensor:
        """(N, L, S, S) to normalised grey images (N, 3, S, S)."""
        ink = layers.amax(dim=1, keepdim=True)
        return ((ink - MEAN) / STD).expand(-1, 3, -1, -1)


class Digits(ImageData):
    """Cluttered scenes of scikit-learn's 1797 digits; the label is the one whole digit (10 classes).

    No digit, whole or in fragments, is shared by two splits. Training draws new scenes every epoch from the
    run's seed; validation and test scenes are fixed.

    Args:
        digit_scale: (least, most) pixels per source pixel of 8 on a 64 pixel canvas; grows with the canvas.
        fragments: pieces of other digits per scene.
        fragment_size: their side in source pixels, of a digit's 8.
        scenes_per_epoch: training scenes.
        val_scenes, test_scenes: fixed scenes.
    """

    def __init__(
        self,
        *,
        digit_scale: Sequence[float],
        fragments: int,
        fragment_size: int,
        scenes_per_epoch: int,
        val_scenes: int,
        test_scenes: int,
        **common: Any,
    ):
        super().__init__(**common)
        self.digit_scale = tuple(float(scale) for scale in digit_scale)
        self.fragments, self.fragment_size = fragments, fragment_size
        self.scenes: dict[Split, int] = {"train": scenes_per_epoch, "val": val_scenes, "test": test_scenes}

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple("0123456789")

    def check(self) -> None:
        self._check_num_classes()
        least, most = self.digit_scale
        if not 0 < least <= most <= REFERENCE_CANVAS / GRID:
            raise DataError(
                f"{self.name}: the config says digit_scale: {list(self.digit_scale)}; it must be two numbers "
                f"that rise, above 0 and at most {REFERENCE_CANVAS // GRID}, where a digit fills the canvas"
            )
        if not 1 <= self.fragment_size < GRID:
            raise DataError(
                f"{self.name}: the config says fragment_size: {self.fragment_size}; it must be 1 to {GRID - 1}"
            )

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        # The picture's size and normalisation belong to the model; what is where in it belongs to the data.
        digest = hashlib.sha256(repr((self.digit_scale, self.fragments, self.fragment_size, self.scenes)).encode())
        for split in SOURCE_SIZES:
            ink, labels, rows = source_digits(split)
            for array in (ink, labels, rows):
                digest.update(array.numpy().tobytes())
        # The fixed scenes' digits, so that a torch release that draws otherwise shows.
        fixed: tuple[Split, ...] = ("val", "test")
        for split in fixed:
            scenes = self.make_dataset(split)
            digest.update(scenes.plan(range(len(scenes))).source.numpy().tobytes())
        return digest.hexdigest()[:16]

    def make_dataset(self, split: Split) -> DigitScenes:
        return self.make_on_device(split, torch.device("cpu"))

    def make_on_device(self, split: Split, device: torch.device) -> DigitScenes:
        return DigitScenes(
            split,
            length=self.scenes[split],
            keys=(split, self.seed) if split == "train" else (split,),
            image_size=self.image_size,
            digit_scale=self.digit_scale,
            fragments=self.fragments,
            fragment_size=self.fragment_size,
            device=device,
        )

    def scene(self, number: int, split: Split) -> Scene:
        """One scene with mask and box, for analyses; `number` counts as the loaders' do (ImageData)."""
        dataset = self.dataset(split)
        assert isinstance(dataset, DigitScenes)
        return dataset.scene(number)
