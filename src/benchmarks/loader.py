"""How many images a second one core prepares, with the augmentation that DAT is trained with.

The images are crops of scikit-learn's two photographs, of the size of ImageNet's average image, as JPEG files: decoded,
augmented and collated as `data=imagenet` does.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader

from src.config import load_config
from src.data.files import ImageFiles
from src.data.imagenet import ImageNet
from src.data.images import AugmentedImages

SIZE = (500, 375)  # pixels, of ImageNet's average image
QUALITY = 97  # of JPEG: files of about 100 kB, as ImageNet's
BATCH = 32


def photographs(folder: Path, number: int) -> ImageFiles:
    """Writes `number` JPEG files."""
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(0)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    for index in range(number):
        photo = photos[index % len(photos)]
        share = random.uniform(0.6, 1)
        wide, high = round(photo.width * share), round(photo.width * share * SIZE[1] / SIZE[0])
        high = min(high, photo.height)
        left, top = (int(random.integers(0, most + 1)) for most in (photo.width - wide, photo.height - high))
        crop = photo.crop((left, top, left + wide, top + high)).resize(SIZE, Image.Resampling.BICUBIC)
        crop.save(folder / f"{index}.jpg", quality=QUALITY)
    names = np.array([f"{index}.jpg" for index in range(number)])
    return ImageFiles(folder, names, np.zeros(number, dtype=np.int64))


def images_per_second(files: ImageFiles, *, rounds: int) -> list[float]:
    """Of one process, in each of `rounds` passes through the files; one pass before warms up."""
    cfg: dict[str, Any] = load_config("model=dat_tiny", "data=imagenet", f"data.root={files.root}")["data"]
    data = ImageNet(**{key: value for key, value in cfg.items() if not key.startswith("_")})
    indices = np.arange(len(files.names))
    loader = DataLoader(AugmentedImages(files, indices, data.train_transform(), seed=0), batch_size=BATCH)
    found = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        for _ in loader:
            pass
        found.append(len(indices) / (time.perf_counter() - began))
    return found[1:]


def kilobytes(files: ImageFiles) -> float:
    """Of the average file."""
    return sum(os.path.getsize(files.root / str(name)) for name in files.names) / len(files.names) / 1000
