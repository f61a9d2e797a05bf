"""Values that many runs have in common, kept once."""

import json
from typing import Any


class Shared:
    """A list of plain values without doubles; its users keep numbers of its places.

    Attributes:
        values: in the order in which they came.
    """

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[str, int] = {}

    def number(self, value: Any) -> int:
        """Where `value` stands."""
        key = json.dumps(value, sort_keys=True)
        if key not in self._numbers:
            self._numbers[key] = len(self.values)
            self.values.append(value)
        return self._numbers[key]
