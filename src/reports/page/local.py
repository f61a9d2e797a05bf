"""Texts without what is this machine's own: where folders lie, and what it is called."""

import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]

# Not what looks like one in addresses (`//host/...`), in relative paths (`src/...`) and in names such as `val/acc1`.
_ABSOLUTE = re.compile(r"(?<![\w.:/~…-])/(?:[^\s/\"'`,:;()<>\[\]{}|]+/)+")
_LIBRARIES = re.compile(r".*/(?:site-packages|python3\.\d+)/")
_SHORTEST_NAME = 4  # a machine called "a" would take that letter out of every text


def without_places(runs: Path) -> Callable[[Any], Any]:
    """A function that takes them out of plain data, keys excepted.

    `runs`, the folder of all studies, becomes its name, and what lies below the project is told from there. Of any
    other absolute path the last part remains, or what follows `site-packages/`.
    """
    name = runs.resolve().name.replace("\\", r"\\")  # in a replacement, one would begin an escape
    places = {str(runs.absolute()): name, str(runs.resolve()): name, str(ROOT): "", str(Path.home()): "~"}
    known = [(re.compile(rf"(?<![\w.-]){re.escape(at)}(?:(/)|(?![\w-]))"), short) for at, short in places.items()]
    machine = platform.node()

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(child) for key, child in value.items()}
        if isinstance(value, list):
            return [clean(child) for child in value]
        if not isinstance(value, str):
            return value
        for pattern, short in known:
            value = pattern.sub(rf"{short}\1" if short else "", value)
        if len(machine) >= _SHORTEST_NAME:
            value = re.sub(rf"(?<![\w-]){re.escape(machine)}(?![\w-])", "<machine>", value)
        return _ABSOLUTE.sub(_shortened, value)

    return clean


def _shortened(found: re.Match[str]) -> str:
    below = _LIBRARIES.sub("", found[0])
    return f"…/{below}" if below != found[0] else "…/"
