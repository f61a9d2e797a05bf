"""The backbone in data-flow order: stem, four stages with a down-sampling before each but the first, head."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from src.models.attention import AttentionKind
from src.models.block import Block
from src.models.geometry import GeometryError
from src.models.stage import lay_out


class DAT(nn.Module):
    """Vision Transformer with Deformable Attention (CVPR 2022, Fig. 3): images (B, 3, H, W) to logits.

    Args:
        image_size: side of the images in pixels; tables of position biases are made for it.
        patch_size: side of the patches that the stem turns into pixels of the first map.
        mlp_ratio: width of the feed-forward networks in channels of their stage.
        drop_path_rate: chance to drop a branch in the last block; it grows linearly from 0 in the first.
        stem: builds, from the first stage's channels and `patch_size`, the module from images to its map.
        stages: by name, in order, the fields of `Stage`.
        attention: the kinds that stages may name, by name.

    Raises:
        GeometryError: before anything is built, where a stage can't work; the message names a way out.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        num_classes: int,
        mlp_ratio: int,
        drop_path_rate: float,
        stem: Callable[[int, int], nn.Module],
        stages: Mapping[str, Any],
        attention: Mapping[str, AttentionKind],
    ):
        super().__init__()
        self.image_size = image_size
        plan = lay_out(stages, image_size=image_size, patch_size=patch_size)
        for stage in plan:
            for kind in stage.kinds:
                if kind not in attention:
                    raise GeometryError(
                        f"stage {stage.name}: no attention kind {kind!r}; there are {', '.join(attention)}"
                    )
                attention[kind].check(stage)

        self.stem = stem(plan[0].dim, patch_size)
        last = sum(stage.depth for stage in plan) - 1
        drop_path_rates = (drop_path_rate * i / max(last, 1) for i in range(last + 1))
        self.stages = nn.ModuleDict()
        dim = plan[0].dim
        for stage in plan:
            blocks = [
                Block(
                    stage.dim,
                    attention[kind].build(stage),
                    hidden_dim=mlp_ratio * stage.dim,
                    drop_path_rate=next(drop_path_rates),
                )
                for kind in stage.kinds
            ]
            parts: OrderedDict[str, nn.Module] = OrderedDict()
            if stage is not plan[0]:
                parts["downsample"] = Downsample(dim, stage.dim)
            parts["blocks"] = nn.Sequential(*blocks)
            self.stages[stage.name] = nn.Sequential(parts)
            dim = stage.dim
        self.norm = LayerNorm2d(plan[-1].dim, eps=1e-5)
        self.head = nn.Linear(plan[-1].dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"images are {images.shape[2]}x{images.shape[3]}, but this model is made for "
                f"{self.image_size}x{self.image_size}; resize them or build it with model.image_size={images.shape[2]}"
            )
        # Channels last: norms see contiguous channels, and 1x1 convolutions run as fast matrix products.
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        for stage in self.stages.values():
            x = stage(x)
        return self.head(self.norm(x).mean(dim=(2, 3)))


class Downsample(nn.Sequential):
    """Halves the map: a convolution of 2x2 patches and a norm."""

    def __init__(self, dim: int, out_dim: int):
        super().__init__(nn.Conv2d(dim, out_dim, 2, 2, bias=False), LayerNorm2d(out_dim, eps=1e-5))
