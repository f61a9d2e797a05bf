"""The backbone in data-flow order: stem, four stages with a down-sampling before each but the first, head."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from src.models.attention import AttentionKind
from src.models.block import Block
from src.models.checkpointing import Blocks
from src.models.geometry import GeometryError, size
from src.models.stage import Stage, lay_out
from src.models.timm_api import TimmBackbone


class DAT(TimmBackbone):
    """Vision Transformer with Deformable Attention (CVPR 2022, Fig. 3): images (B, C, H, W) to logits.

    Images may have any size at which every stage can work; tables of position biases are stretched to it.

    Args:
        image_size: side of the images in pixels, or their height and width; what `forward` sees most of the time.
        table_image_size: of the images that the tables are made for, likewise.
        patch_size: side of the patches that the stem turns into pixels of the first map.
        in_channels: of the images.
        num_classes: logits; with 0 there is no head, and the features averaged over the map are returned.
        mlp_ratio: width of the feed-forward networks in channels of their stage.
        drop_path_rate: chance to drop a branch in the last block; it grows linearly from 0 in the first.
        stem: builds, from `in_channels`, the first stage's channels and `patch_size`, what makes its map of images.
        downsampling: builds, from the channels of a stage and of the next, the module between them.
        local_perception, layer_scale: build, from a stage's channels, these parts of a block.
        feed_forward: builds, from a stage's channels and the hidden width, the feed-forward network of a block.
        stages: by name, in order, the fields of `Stage`.
        attention: the kinds that stages may name, by name.

    Raises:
        GeometryError: before anything is built, where a stage can't work; the message names a way out.
    """

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int],
        table_image_size: int | tuple[int, int],
        patch_size: int,
        in_channels: int,
        num_classes: int,
        mlp_ratio: int,
        drop_path_rate: float,
        stem: Callable[[int, int, int], nn.Module],
        downsampling: Callable[[int, int], nn.Module],
        local_perception: Callable[[int], nn.Module],
        layer_scale: Callable[[int], nn.Module],
        feed_forward: Callable[[int, int], nn.Module],
        stages: Mapping[str, Any],
        attention: Mapping[str, AttentionKind],
    ):
        super().__init__()
        self.image_size = _pair(image_size)
        self._check = partial(check, patch_size=patch_size, attention=attention)
        self._check(stages, self.image_size)
        self._records, self._works_at = dict(stages), {self.image_size}
        laid_out = self._check(stages, _pair(table_image_size))

        self.stem = stem(in_channels, laid_out[0].dim, patch_size)
        last = sum(stage.depth for stage in laid_out) - 1
        drop_path_rates = (drop_path_rate * i / max(last, 1) for i in range(last + 1))
        self.stages = nn.ModuleDict()
        dim = laid_out[0].dim
        for stage in laid_out:
            blocks = [
                Block(
                    stage.dim,
                    local_perception=local_perception(stage.dim),
                    attention=attention[kind].build(stage),
                    feed_forward=feed_forward(stage.dim, mlp_ratio * stage.dim),
                    scale1=layer_scale(stage.dim),
                    scale2=layer_scale(stage.dim),
                    drop_path_rate=next(drop_path_rates),
                )
                for kind in stage.kinds
            ]
            parts: OrderedDict[str, nn.Module] = OrderedDict()
            if stage is not laid_out[0]:
                parts["downsample"] = downsampling(dim, stage.dim)
            parts["blocks"] = Blocks(*blocks)
            self.stages[stage.name] = nn.Sequential(parts)
            dim = stage.dim
        self.norm = LayerNorm2d(dim, eps=1e-5)

        self.in_chans, self.num_features = in_channels, dim
        self.feature_info = [
            {"num_chs": stage.dim, "reduction": patch_size * 2**i, "module": f"stages.{stage.name}"}
            for i, stage in enumerate(laid_out)
        ]
        self.reset_classifier(num_classes, "avg")

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.features(images)[-1])

    def features(self, images: Tensor) -> list[Tensor]:
        """The map (B, C, H, W) that each stage ends with; the last one is normalised."""
        maps = self.stage_maps(images)
        return [*maps[:-1], self.norm(maps[-1])]

    def stage_maps(self, images: Tensor, *, stages: int | None = None) -> list[Tensor]:
        """The map that each of the first `stages` stages ends with, or each of all."""
        if not torch.compiler.is_compiling():
            self._admit((images.shape[2], images.shape[3]))
        # Channels last: norms see contiguous channels, and 1x1 convolutions run as fast matrix products.
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        maps = []
        for stage in list(self.stages.values())[:stages]:
            x = stage(x)
            maps.append(x)
        return maps

    def _admit(self, images: tuple[int, int]) -> None:
        """Refuses a size at which a stage can't work, in one line in place of an error from deep inside."""
        if images not in self._works_at:
            try:
                self._check({name: self._records[name] for name in self.stages}, images)
            except GeometryError as error:
                raise GeometryError(f"images of {size(images)} pixels: {error}") from None
            self._works_at.add(images)


def _pair(side: int | tuple[int, int]) -> tuple[int, int]:
    return (side, side) if isinstance(side, int) else (side[0], side[1])


def check(
    records: Mapping[str, Any], images: tuple[int, int], *, patch_size: int, attention: Mapping[str, AttentionKind]
) -> list[Stage]:
    """Stages for images of this size, once every kind of attention that they name has agreed.

    Raises:
        GeometryError: a stage can't work, or names an unknown kind.
    """
    stages = lay_out(records, image_size=images, patch_size=patch_size)
    for stage in stages:
        for kind in stage.kinds:
            if kind not in attention:
                raise GeometryError(f"stage {stage.name}: no attention kind {kind!r}; there are {', '.join(attention)}")
            attention[kind].check(stage)
    return stages
