"""Classifiers of timm's, to be trained as DAT is: same recipe, logging and record."""

import re
from collections.abc import Callable
from difflib import SequenceMatcher
from heapq import nlargest
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed
from torch import nn

from src.complexity import on_meta
from src.models.geometry import GeometryError, nearest

USUAL_SIZE = 224  # where timm names none


class UnknownModel(ValueError):
    """Not the name of an architecture of timm's."""


def timm_classifier(
    *, architecture: str, image_size: int, num_classes: int, drop_path_rate: float, **options: Any
) -> nn.Module:
    """Images (B, 3, H, W) to logits (B, num_classes), by `architecture` of timm's, with timm's own first weights.

    It is tried without weights first, which costs a second: what can't work is found before any work is spent.

    Args:
        architecture: a name of `timm.list_models()`.
        image_size: H and W. Networks made for one size are made for this one.
        drop_path_rate: for networks that have drop path; 0 for the others.
        options: anything else that timm's constructor of it takes, such as `window_size`.

    Raises:
        UnknownModel: timm doesn't have it.
        GeometryError: it doesn't work at this size.
        ValueError: it doesn't take an option, or is no classifier.
    """
    require_known(architecture)
    if not isinstance(image_size, int) or image_size < 1:
        raise GeometryError(f"model.image_size is {image_size!r}; it must be a whole number of pixels")
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"model.drop_path_rate is {drop_path_rate}; it must be at least 0 and below 1")

    def create(size: int) -> nn.Module:
        return _create(architecture, size, num_classes=num_classes, drop_path_rate=drop_path_rate, **options)

    def problem(size: int) -> str | None:
        return _problem(lambda: create(size), size, num_classes)

    found = problem(image_size)
    if found is None:
        return create(image_size)
    own = own_size(architecture)
    if image_size == own or problem(own) is not None:
        raise ValueError(f"timm's {architecture} can't be trained here: {found}")
    # Steps of patches, windows and strides; beyond a few of them there is little to be found.
    around = [own, *(step * (image_size // step + n) for step in (14, 16, 32) for n in (0, 1))]
    working = [size for size in sorted(set(around)) if size > 0 and problem(size) is None]
    raise GeometryError(
        f"model.image_size {image_size} doesn't suit timm's {architecture} ({found}); "
        f"{nearest(working, image_size)} would do"
    )


def own_size(architecture: str) -> int:
    """H and W of the images that timm's authors gave it."""
    published = timm.get_pretrained_cfg(architecture)
    return USUAL_SIZE if published is None else published.input_size[-1]


def require_known(architecture: str) -> None:
    """
    Raises:
        UnknownModel: timm doesn't have it; the message has the nearest names.
    """
    name, _, tag = architecture.partition(".")
    if not timm.is_model(name):
        # By their beginnings first: names go on with patch, window and image size, which few people type.
        def likeness(known: str) -> tuple[float, float]:
            return (
                SequenceMatcher(None, known[: len(name)], name).ratio(),
                SequenceMatcher(None, known, name).ratio(),
            )

        similar = nlargest(3, timm.list_models(), key=likeness)
        raise UnknownModel(f"timm {timm.__version__} has no model {name!r}; nearest are {', '.join(similar)}")
    if tag:
        raise UnknownModel(f"{architecture!r} names pretrained weights, which are not loaded here; choose {name}")


def _create(architecture: str, size: int, **arguments: Any) -> nn.Module:
    """Asks with everything, then without what its constructor refuses to take, which it does before it starts.

    Raises:
        ValueError: it refuses what can't be left out.
    """
    arguments["img_size"] = size
    dispensable = {"img_size"} if arguments["drop_path_rate"] else {"img_size", "drop_path_rate"}
    while True:
        try:
            return timm.create_model(architecture, pretrained=False, **arguments)
        except TypeError as error:
            refused = arguments.keys() & set(re.findall(r"'(\w+)'", str(error)))
            if "unexpected keyword argument" not in str(error) or not refused:
                raise
            for option in refused - dispensable:
                way_out = "must be 0" if option == "drop_path_rate" else "must go"
                raise ValueError(f"it takes no {option}, so model.{option} {way_out}") from error
            arguments = {key: value for key, value in arguments.items() if key not in refused}


def _problem(create: Callable[[], nn.Module], size: int, num_classes: int) -> str | None:
    """Why there would be no logits of an image, in a line; nothing is computed."""
    try:
        net = on_meta(create)
        # timm leaves out the border that fills no patch.
        for part in net.modules():
            if isinstance(part, PatchEmbed) and not part.dynamic_img_pad and size % max(part.patch_size):
                return f"patches of {part.patch_size[0]} pixels don't cover it"
        with torch.no_grad():
            logits = net.eval()(torch.zeros(1, 3, size, size, device="meta"))
    except Exception as error:  # timm asserts, torch raises what it likes
        said = str(error).strip() or type(error).__name__
        return said.splitlines()[0].rstrip(".")
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
    return None if shape == (1, num_classes) else f"it gives {shape} for an image, not logits (1, {num_classes})"
