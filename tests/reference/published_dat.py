"""The published networks, transcribed: images (B, 3, H, W) to logits. See README.md."""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from timm.layers import DropPath
from torch import Tensor, nn

from tests.reference.published_parts import (
    ConvMLP,
    DeformableAttention,
    LocalAttention,
    MapNorm,
    NeighborhoodAttention,
    ShiftedAttention,
    TokenMLP,
)


class PublishedStage(nn.Module):
    """Blocks of attention and a feed-forward network, in DAT++ behind a look at the neighbours."""

    def __init__(self, config: Mapping[str, Any], index: int, side: int, rates: list[float], release: str):
        super().__init__()
        dim, specs = config["dims"][index], config["stage_spec"][index]
        conv = config["use_dwc_mlps"][index]
        self.layer_norms = nn.ModuleList(MapNorm(dim) for _ in range(2 * len(specs)))
        self.mlps = nn.ModuleList((ConvMLP if conv else TokenMLP)(dim, config["expansion"]) for _ in specs)
        self.attns = nn.ModuleList(_attention(letter, config, index, side, release) for letter in specs)
        self.drop_path = nn.ModuleList(DropPath(rate) for rate in rates)
        self.looks = release == "v2" and config["use_lpus"][index]
        if self.looks:
            self.local_perception_units = nn.ModuleList(nn.Conv2d(dim, dim, 3, 1, 1, groups=dim) for _ in specs)

    def forward(self, x: Tensor) -> Tensor:
        for d, attention in enumerate(self.attns):
            if self.looks:
                x = self.local_perception_units[d](x) + x
            x = self.drop_path[d](attention(self.layer_norms[2 * d](x))) + x
            x = self.drop_path[d](self.mlps[d](self.layer_norms[2 * d + 1](x))) + x
        return x


class PublishedDAT(nn.Module):
    """A whole published network.

    Args:
        config: a published `MODEL.DAT` mapping, complete.
        release: "v1" (CVPR 2022) or "v2" (DAT++).
    """

    def __init__(self, config: Mapping[str, Any], release: str):
        super().__init__()
        dims, patch = config["dims"], config["patch_size"]
        if config["use_conv_patches"]:
            self.patch_proj = nn.Sequential(
                nn.Conv2d(3, dims[0] // 2, 3, patch // 2, 1),
                MapNorm(dims[0] // 2),
                nn.GELU(),
                nn.Conv2d(dims[0] // 2, dims[0], 3, patch // 2, 1),
                MapNorm(dims[0]),
            )
        else:
            self.patch_proj = nn.Sequential(nn.Conv2d(3, dims[0], patch, patch), MapNorm(dims[0]))
        rates = torch.linspace(0, config["drop_path_rate"], sum(config["depths"])).tolist()
        self.stages, self.down_projs = nn.ModuleList(), nn.ModuleList()
        side = config["img_size"] // patch
        for index, depth in enumerate(config["depths"]):
            own, rates = rates[:depth], rates[depth:]
            self.stages.append(PublishedStage(config, index, side // 2**index, own, release))
        for dim, out in pairwise(dims):
            how = (3, 2, 1) if config["use_conv_patches"] else (2, 2, 0)
            self.down_projs.append(nn.Sequential(nn.Conv2d(dim, out, *how, bias=False), MapNorm(out)))
        self.cls_norm = MapNorm(dims[-1])
        self.cls_head = nn.Linear(dims[-1], config["num_classes"])

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_proj(images)
        for index, stage in enumerate(self.stages):
            x = stage(self.down_projs[index - 1](x) if index else x)
        return self.cls_head(self.cls_norm(x).mean(dim=(2, 3)))


def _attention(letter: str, config: Mapping[str, Any], index: int, side: int, release: str) -> nn.Module:
    dim, heads, window = config["dims"][index], config["heads"][index], config["window_sizes"][index]
    if letter == "L":
        return LocalAttention(dim, heads, window)
    if letter == "S":
        return ShiftedAttention(dim, heads, window, -(-window // 2), side)
    if letter == "N":
        return NeighborhoodAttention(dim, config["nat_ksizes"][index], heads)
    if letter != "D":
        raise ValueError(f"no published model has a block {letter!r}")
    flags = {"use_pe": "use_pes", "dwc_pe": "dwc_pes", "no_off": "no_offs", "fixed_pe": "fixed_pes"}
    block = {flag: config[name][index] for flag, name in flags.items()}
    block |= {
        "q_size": (side, side),
        "n_heads": heads,
        "n_head_channels": dim // heads,
        "n_groups": config["groups"][index],
        "stride": config["strides"][index],
        "offset_range_factor": config["offset_range_factor"][index],
        "stage_idx": index,
        "ksize": config["ksizes"][index] if release == "v2" else None,
    }
    return DeformableAttention(block, release)


def published_config(release: str, name: str) -> dict[str, Any]:
    """The published configuration of a network, such as `dat_tiny`, as its golden file has it."""
    path = Path(__file__).parents[1] / "golden" / f"{release}.model.{name}.safetensors"
    with safe_open(path, "pt") as file:
        config: dict[str, Any] = json.loads(file.metadata()["config"])
    return config
