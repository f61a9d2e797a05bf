"""The record of one stage: every number that describes it, under one name."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
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

    def with_map(self, map_size: tuple[int, int]) -> "Stage":
        """The same stage on another map."""
        return replace(self, map_size=map_size)


def lay_out(stages: Mapping[str, Any], *, image_size: int, patch_size: int) -> list[Stage]:
    """Stages with their maps: the stem divides the image by `patch_size`, each later stage halves the map.

    Args:
        stages: by name, in order, a mapping with the fields of `Stage` but `name` and `map_size`.

    Raises:
        GeometryError: a field is missing or unknown, heads don't divide channels, or a map can't be divided.
    """
    known = {f.name for f in fields(Stage)} - {"name", "map_size"}
    side, divisor, placed = image_size, patch_size, []
    for name, values in stages.items():
        values = dict(values)
        if wrong := known.symmetric_difference(values):
            missing = sorted(known - set(values))
            what = f"lacks {missing}" if missing else f"has the unknown fields {sorted(wrong)}"
            raise GeometryError(f"stage {name} {what}; a stage needs {', '.join(sorted(known))}")
        if side % divisor:
            step = patch_size * 2 ** (len(stages) - 1)
            raise GeometryError(
                f"stage {name}: a {side}x{side} map (of image_size {image_size}) can't be divided by {divisor}; "
                f"nearest image sizes that work: {nearest(range(step, 2 * image_size + step, step), image_size)}"
            )
        side, divisor = side // divisor, 2
        values["attention"] = tuple(values["attention"])
        stage = Stage(name=name, map_size=(side, side), **values)
        _check(stage)
        placed.append(stage)
    return placed


def _check(stage: Stage) -> None:
    """Rules that hold for every kind of attention."""
    for field in ("dim", "depth", "num_heads", "window_size", "stride", "offset_kernel_size", "reduction"):
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
