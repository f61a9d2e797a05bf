"""The published networks in timm's registry: `timm.create_model("datpp_tiny", num_classes=10, img_size=96)`.

They are those of `conf/model/`, with timm's names for what may be changed.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from hydra.core.global_hydra import GlobalHydra
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, resolve_pretrained_cfg
from torch import Tensor, nn

from src.models.dat import DAT
from src.models.position_bias import RelativeBias
from src.models.weights import require_file, stretched

RELEASES = {
    "dat": {"paper_name": "Vision Transformer with Deformable Attention", "paper_ids": "arXiv:2201.00520"},
    "datpp": {"paper_name": "DAT++", "paper_ids": "arXiv:2309.01430"},
}
NAMES = [f"{release}_{size}" for release in RELEASES for size in ("tiny", "small", "base", "base_384")]

OF_THE_NETWORK = ("num_classes", "in_chans", "img_size", "drop_path_rate", "global_pool")
OF_TIMM = ("features_only", "out_indices", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def _published(name: str) -> dict[str, Any]:
    """How the published weights were evaluated."""
    side = 384 if name.endswith("_384") else 224
    whole = name == "datpp_base_384"  # images are squeezed to a square; the others are the middle of larger ones
    return {
        "input_size": (3, side, side),
        "pool_size": (side // 32, side // 32),
        "crop_pct": 1.0 if whole else 0.875,
        "crop_mode": "squash" if whole else "center",
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "num_classes": 1000,
        "first_conv": "stem.0",
        "classifier": "head",
        "license": "apache-2.0",
        "origin_url": "https://github.com/LeapLabTHU/DAT",
        **RELEASES[name.partition("_")[0]],
    }


default_cfgs = generate_default_cfgs({name: _published(name) for name in NAMES})


def create(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
    """What `timm.create_model(name, ...)` calls.

    Args:
        options: `num_classes` (0 for pooled features), `in_chans`, `img_size` that tables are made for (a number or
            (height, width)), `drop_path_rate`, `global_pool` (`avg`, or '' for the map); `features_only` with
            `out_indices`; `pretrained_cfg_overlay=dict(file=...)` with `pretrained`: weights by our names.

    Raises:
        TypeError: an unknown option.
        ValueError: `pretrained` without a file, or the file isn't there.
        GeometryError: a size at which the network can't work.
    """
    options.setdefault("drop_rate", 0.0)
    if options.pop("drop_rate"):
        raise ValueError(f"drop_rate must be 0: {name} drops no features before its head")
    if unknown := sorted(options.keys() - {*OF_THE_NETWORK, *OF_TIMM}):
        raise TypeError(
            f"{name} got an unexpected keyword argument {unknown[0]!r}; it takes {', '.join(OF_THE_NETWORK + OF_TIMM)}"
        )
    source = resolve_pretrained_cfg(name, options.get("pretrained_cfg"), options.get("pretrained_cfg_overlay"))
    if pretrained and not (source.has_weights or source.state_dict):
        raise ValueError(
            f"pretrained=True needs a file of weights: {name}'s are on its authors' drives ({source.origin_url}); "
            f"python -m src.checkpoint import makes one for pretrained_cfg_overlay=dict(file=...)"
        )
    if pretrained and source.file:
        require_file(Path(source.file))
    return build_model_with_cfg(
        partial(build, name),
        name,
        pretrained,
        feature_cfg={"feature_cls": "getter", "out_indices": options.pop("out_indices", (0, 1, 2, 3))},
        pretrained_filter_fn=fit_tables,
        **options,
    )


def build(
    name: str,
    *,
    num_classes: int,
    in_chans: int,
    img_size: int | tuple[int, int] | None = None,
    drop_path_rate: float | None = None,
    global_pool: str = "avg",
) -> DAT:
    """The network of conf/model/`name`.yaml, with torch's own first weights, as published."""
    from src.config import build_model, load_config  # which are above the networks

    caller = GlobalHydra.instance().hydra  # a Hydra session that load_config ends
    cfg = load_config(f"model={name}", "recipe.initialisation=published")
    GlobalHydra.instance().hydra = caller
    cfg["seed"] = int(torch.randint(2**62, (), device="cpu"))  # first weights follow torch's generator, as timm's do
    cfg["model"] |= {"num_classes": num_classes, "in_channels": in_chans}
    if img_size is not None:
        side = img_size if isinstance(img_size, int) else tuple(img_size)
        cfg["model"] |= {"image_size": side, "table_image_size": side}
    if drop_path_rate is not None:
        cfg["model"]["drop_path_rate"] = drop_path_rate
    net = cast(DAT, build_model(cfg))
    net.reset_classifier(num_classes, global_pool)
    return net


def fit_tables(weights: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Tables made for images of another size, resized as the published code does."""
    fitted = dict(weights)
    for name, part in net.named_modules():
        key = f"{name}.bias_table"
        if isinstance(part, RelativeBias) and key in weights and weights[key].shape != part.bias_table.shape:
            fitted[key] = stretched(weights[key], part.bias_table.shape[1:])
    return fitted


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    def entrypoint(pretrained: bool = False, **options: Any) -> nn.Module:
        return create(name, pretrained, **options)

    entrypoint.__name__ = name
    return entrypoint


for _name in NAMES:
    register_model(_entrypoint(_name))
