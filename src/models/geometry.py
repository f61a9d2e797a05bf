"""Refusing a geometry that can't work, in one line, before anything is built."""

from collections.abc import Iterable


class GeometryError(ValueError):
    """A map, window, stride, kernel or group count that can't work. The message names the stage and a way out."""


def nearest(candidates: Iterable[int], wanted: int) -> str:
    """The one or two candidates nearest to `wanted`, as words for an error message."""
    closest = sorted(sorted(set(candidates), key=lambda c: (abs(c - wanted), c))[:2])
    return " and ".join(map(str, closest)) or "none"


def size(map_size: tuple[int, int]) -> str:
    """A map as people write it: 14x14."""
    return f"{map_size[0]}x{map_size[1]}"
