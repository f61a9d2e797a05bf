"""What a benchmark is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line of a benchmark.

    Attributes:
        output: folder of the table and the figures.
        rounds: of each competition; None for what the target thinks enough.
        threads: of torch on the CPU; None for torch's own choice.
        device: "cpu" or "cuda".
        quick: about a tenth of the work: fewer rounds, smaller batches.
        parts: of the target; none for all.
        freed_memory: "kept" by the process, as in runs, or "returned" to the system, as the C library has it. The
            command line sees to it; rows tell.
    """

    output: Path
    rounds: int | None = None
    threads: int | None = None
    device: str = "cpu"
    quick: bool = False
    parts: tuple[str, ...] = ()
    freed_memory: str = "returned"

    def chosen(self, parts: Sequence[str]) -> tuple[str, ...]:
        """Those of a target's parts that are asked for, in its order.

        Raises:
            ValueError: one is asked for that isn't there.
        """
        for part in self.parts:
            if part not in parts:
                raise ValueError(f"--only {part}: this benchmark has the parts {', '.join(parts)}")
        return tuple(part for part in parts if not self.parts or part in self.parts)
