"""Configurations: composed by Hydra, resolved once, plain afterwards."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from src import own_configs, timm_configs

if TYPE_CHECKING:  # torch and the networks take seconds to import, which composing needn't
    from torch import nn

log = logging.getLogger(__name__)

CONF = Path(__file__).parents[1] / "conf"

for configs in (timm_configs, own_configs):  # before anything is composed: conf/train.yaml has both on its search path
    configs.register()

# What a variant may have of its own without being another network or training.
LABELS = ("name", "axes", "against", "published", "study")


def load_config(*overrides: str) -> dict[str, Any]:
    """The resolved config of `python -m src.train` with `overrides`, as plain data.

    Raises:
        hydra.errors.HydraException: an override names nothing that exists.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("train", list(overrides)))


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """Plain dictionaries and lists, with every interpolation replaced by its value.

    `model.weights`, a path, becomes path and hash: a run depends on what the file holds, not on where it lies.

    Raises:
        ValueError: a value that must be given isn't; the message names it.
        WeightsError: there is no such file.
    """
    for key in _not_given(OmegaConf.to_container(cfg, resolve=False), ""):
        raise ValueError(f"{key} must be given: add {key}=... to the command")
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    plain.pop("hydra", None)
    if plain["model"].get("weights"):
        from src.models.weights import pin

        plain["model"]["weights"] = pin(plain["model"]["weights"])
    return {str(key): value for key, value in plain.items()}


def _not_given(value: Any, at: str) -> Iterator[str]:
    """Dotted keys whose value is still `???`; OmegaConf's own search stumbles over interpolations that lead there."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _not_given(child, f"{at}.{key}" if at else str(key))
    elif value == "???":
        yield at


def build_model(cfg: dict[str, Any]) -> "nn.Module":
    """The network of a resolved config, with its first weights: drawn, or those of `model.weights`.

    Each layer of ours draws by `seed` and its own name (`src/models/init.py`), whatever was drawn before. timm's
    networks draw from torch's generator as timm does; only what the initialisation draws anew follows `seed` and names.

    Raises:
        GeometryError: it can't work; nothing has been built.
        WeightsError: the file of weights isn't there, or is of another model; also on the meta device.
        ValueError: an unknown initialisation, or an unknown way to compute 1x1 convolutions.
    """
    from src.models.dat import DAT
    from src.models.init import INITIALISATIONS, draw, reset
    from src.models.pointwise import choose_backend
    from src.models.weights import fill

    begin = cfg["recipe"]["initialisation"]
    if begin not in INITIALISATIONS:
        raise ValueError(f"recipe.initialisation is {begin!r}; it must be one of {', '.join(INITIALISATIONS)}")
    net = build({key: value for key, value in cfg["model"].items() if key not in ("name", "weights")})
    choose_backend(net, cfg.get("linear_backend", "auto"))  # configs of older records don't say
    if isinstance(net, DAT):  # timm's networks begin by rules that their layers don't know
        draw(net, seed=cfg["seed"], rule=reset)
    draw(net, seed=cfg["seed"], rule=INITIALISATIONS[begin])
    if cfg["model"].get("weights"):
        report = fill(net, cfg["model"])
        if not next(net.parameters()).is_meta:
            log.info("weights of %s: %s", cfg["model"]["weights"]["path"], report)
    return net


def build(spec: dict[str, Any], **arguments: Any) -> Any:
    """What `spec["_target_"]` makes of `spec`; a partial of it where `spec["_partial_"]` is set.

    An error of the target is raised as it is: Hydra's own wraps it in one that hides the line that matters.
    """
    try:
        return instantiate(spec, _convert_="all", **arguments)
    except Exception as error:
        raise (error.__cause__ or error) from None


def differences(one: dict[str, Any], other: dict[str, Any], at: str = "") -> list[str]:
    """Dotted keys whose values differ, the shortest that say it all; labels of a variant are left out.

    A part (a mapping with a `_target_`) counts as one value when the targets differ.
    """
    found = []
    for key in sorted(one.keys() | other.keys()):
        a, b, path = one.get(key), other.get(key), f"{at}{key}"
        if a == b or path in LABELS:
            continue
        if isinstance(a, dict) and isinstance(b, dict) and a.get("_target_") == b.get("_target_"):
            found += differences(a, b, f"{path}.")
        else:
            found.append(path)
    return found
