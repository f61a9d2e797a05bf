"""The record of one stage: every number that describes it, under one name."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from src.models.geometry import GeometryError, nearest


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the backbone (DAT, Table 1). All values are given, also those of kinds that it doesn't use,
    so that an ablation which changes the kind of attention changes nothing else.

    Attributes:
        name: how error messages and state-dict names call the stage.
        map_size: height and width of the feature map, in pixels of that map.
        dim: channels.
        depth: number of blocks.
        num_heads: attention heads.
        attention: kinds of the blocks, repeated until `depth` blocks have one.
        window_size: side of a (shifted) window, in pixels of the map.
        neighborhood_size: side of the window round each pixel (neighborhood attention), an odd number of pixels.
        offset_groups: groups of channels that each choose their own points (deformable attention).
        stride: distance between reference points, in pixels of the map (the paper's r).
        offset_kernel_size: side of the offset network's depthwise convolution (the paper's k).
        reduction: side of the patches that become one key (spatial reduction attention).
    """

    name: str
    map_size: tuple[int, int]
    dim: int
    depth: int
    num_heads: int
    attention: tuple[str, ...]
    window_size: int
    neighborhood_size: int
    offset_groups: int
    stride: int
    offset_kernel_size: int
    reduction: int

    @property
    def key_map_size(self) -> tuple[int, int]:
        """Height and width of the grid of reference points: one point for each `stride` pixels begun."""
        height, width = self.map_size
        return -(-height // self.stride), -(-width // self.stride)

    @property
    def kinds(self) -> list[str]:
        """The kind of attention of each block, in order."""
        return [self.attention[i % len(self.attention)] for i in range(self.depth)]


def lay_out(stages: Mapping[str, Any], *, image_size: tuple[int, int], patch_size: int) -> list[Stage]:
    """Stages with their maps: the stem divides the image by `patch_size`, each later stage halves the map.

    What is left at the lower and right border of a map that doesn't divide becomes a pixel of its own.

    Args:
        stages: by name, in order, a mapping with the fields of `Stage` but `name` and `map_size`.
        image_size: height and width in pixels.

    Raises:
        GeometryError: a field is missing or unknown, not a whole number, or heads don't divide channels.
    """
    known = {f.name for f in fields(Stage)} - {"name", "map_size"}
    map_size, divisor, placed = image_size, patch_size, []
    for name, values in stages.items():
        values = dict(values)
        if wrong := known.symmetric_difference(values):
            missing = sorted(known - set(values))
            what = f"lacks {missing}" if missing else f"has the unknown fields {sorted(wrong)}"
            raise GeometryError(f"stage {name} {what}; a stage needs {', '.join(sorted(known))}")
        map_size = (-(-map_size[0] // divisor), -(-map_size[1] // divisor))
        divisor = 2
        values["attention"] = tuple(values["attention"])
        stage = Stage(name=name, map_size=map_size, **values)
        _check(stage)
        placed.append(stage)
    return placed


def _check(stage: Stage) -> None:
    """Rules that hold for every kind of attention."""
    numbers = [f.name for f in fields(Stage) if f.name not in ("name", "map_size", "attention", "offset_groups")]
    for field in numbers:
        value = getattr(stage, field)
        if not isinstance(value, int) or value < 1:
            raise GeometryError(f"stage {stage.name}: {field} is {value!r}; it must be a whole number of at least 1")
    if not stage.attention:
        raise GeometryError(f"stage {stage.name}: attention is empty; name at least one kind, such as [window]")
    if stage.dim % stage.num_heads:
        works = nearest([n for n in range(1, stage.dim + 1) if stage.dim % n == 0], stage.num_heads)
        raise GeometryError(
            f"stage {stage.name}: num_heads {stage.num_heads} doesn't divide dim {stage.dim}; "
            f"nearest numbers of heads that do: {works}"
        )
