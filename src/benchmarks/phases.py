"""Where the processor time of one run goes, from the start of its process: `python -m src.benchmarks.phases key=value`.

The run is an ordinary one. Functions of ours and of Lightning's are watched from outside; each phase's time is without
that of the phases within it. Prints JSON: seconds by phase, in the order in which phases began.
"""

import time

# The interpreter's own start; what is measured next begins here.
BEGAN = time.process_time()

import functools  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

REST = "everything else"


class Phases:
    """Seconds of processor time by phase; a phase stops while another one runs within it."""

    def __init__(self, clock: Callable[[], float] = time.process_time):
        self.seconds: dict[str, float] = {}
        self._clock, self._stack, self._since = clock, [REST], clock()

    def begin(self, phase: str) -> None:
        self._count()
        self._stack.append(phase)
        self.seconds.setdefault(phase, 0.0)

    def end(self) -> None:
        self._count()
        self._stack.pop()

    def _count(self) -> None:
        now, phase = self._clock(), self._stack[-1]
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now

    def watch(self, owner: Any, name: str, phase: str | Callable[..., str]) -> None:
        """From now on calls of `owner.name` are `phase`, or what it makes of their arguments."""
        watched = getattr(owner, name)

        @functools.wraps(watched)
        def call(*given: Any, **named: Any) -> Any:
            self.begin(phase if isinstance(phase, str) else phase(*given, **named))
            try:
                return watched(*given, **named)
            finally:
                self.end()

        setattr(owner, name, call)


def run(overrides: list[str]) -> dict[str, float]:
    """Trains with `overrides`; seconds by phase."""
    phases = Phases()
    phases.begin("imports")
    from src.imports import uncollected

    with uncollected():
        from src import training
    from lightning.pytorch import Trainer
    from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

    from src import training
    from src.config import load_config
    from src.runs import session, wandb_logger

    phases.end()

    def step(loop: _TrainingEpochLoop, *given: Any) -> str:
        return "other steps" if loop.total_batch_idx >= 0 else "first step"

    def evaluation(loop: _EvaluationLoop, *given: Any) -> str:
        return "test" if loop.trainer.testing else "validation"

    watched: list[tuple[Any, str, str | Callable[..., str]]] = [
        (training, "check", "checks: the network without weights, its cost"),
        (training, "fingerprint_of", "checks: fingerprint of the data"),
        (training, "pinned", "checks: version of the code"),
        (training, "code_files", "checks: version of the code"),
        (session, "provenance", "record: versions and hardware"),
        (session.Run, "update", "record: written"),
        (wandb_logger, "wandb_logger", "W&B: start"),
        (wandb_logger, "finish_wandb", "W&B: end"),
        (training, "build_model", "network"),
        (Trainer, "fit", "Lightning: set-up and loggers"),
        (Trainer, "test", "Lightning: set-up and loggers"),
        (_TrainingEpochLoop, "advance", step),
        (_EvaluationLoop, "run", evaluation),
        (training.WholeCheckpointIO, "save_checkpoint", "checkpoints"),
        (training, "_restore", "checkpoints"),
        (training.ProgressFile, "_write", "progress.json"),
        (training.OffsetDiagnostics, "_measure", "offset diagnostics"),
        (training.OffsetDiagnostics, "on_validation_epoch_end", "offset diagnostics"),
        (training.OffsetDiagnostics, "on_before_optimizer_step", "offset diagnostics"),
        (training.ImageClassifier, "save_predictions", "predictions and points"),
        (training, "points_on", "predictions and points"),
        (training, "write_points", "predictions and points"),
    ]
    for owner, name, phase in watched:
        phases.watch(owner, name, phase)
    phases.begin("config")
    cfg = load_config(*overrides)
    phases.end()
    training.train(cfg)
    phases.begin(REST)  # counts what was running
    phases.end()
    return {"interpreter": BEGAN, **phases.seconds}


if __name__ == "__main__":
    found = run(sys.argv[1:])
    print(json.dumps(found))
