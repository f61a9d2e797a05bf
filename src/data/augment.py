"""The augmentation of DeiT (Touvron et al., 2021), with which DAT is trained; mixup is the trainer's."""

from typing import Any

from timm.data import create_transform

from src.data.files import FileImages
from src.data.images import Transform


class DeiTImages(FileImages):
    """Image files seen through DeiT's transforms, normalised as ImageNet is.

    Args:
        auto_augment: RandAugment policy in timm's notation.
        color_jitter: strength; timm leaves it out where `auto_augment` is set, and so did DeiT.
        erasing: probability of erasing a rectangle, with noise per pixel.
        crop: side of the centre crop in evaluation, relative to the resized image; 1 keeps everything.
    """

    def __init__(self, *, auto_augment: str, color_jitter: float, erasing: float, crop: float, **options: Any):
        super().__init__(**options)
        self.auto_augment, self.color_jitter = auto_augment, color_jitter
        self.erasing, self.crop = erasing, crop

    def train_transform(self) -> Transform:
        return create_transform(
            self.image_size,
            is_training=True,
            auto_augment=self.auto_augment,
            color_jitter=self.color_jitter,
            interpolation="bicubic",
            re_prob=self.erasing,
            re_mode="pixel",
        )

    def eval_transform(self) -> Transform:
        return create_transform(self.image_size, crop_pct=self.crop, interpolation="bicubic")
