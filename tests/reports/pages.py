"""Pages of studies that are made up: all pairs of variants compared, curves, points."""

import json

import numpy as np

from src.reports.comparison import compare_all
from src.reports.page.document import document
from src.reports.points import POINTS, Block, Points, write_points
from src.reports.results import results_of

TEXTS = {
    "answer": "Offsets are worth two points here.",
    "protocol": ["Digit scenes of 64 pixels.", "Validation chooses the epoch; the test split is read once."],
    "limits": ["Eight seeds of one data set say nothing about another."],
}


def document_of(table, *, texts=TEXTS):
    results = results_of(table)
    return document(results, compare_all(results), texts=texts)


def leave_points(folder, *, side=64, groups=2, images=2):
    """Points in a run's folder, as a training leaves them: a grid of 4 x 4, moved by up to 6 pixels."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(8, side, 16)] * 2), -1).reshape(-1, 2)
    pictures = rng.integers(0, 255, (images, side, side, 3)).astype(np.uint8)
    blocks = {
        name: Block(grid, grid + rng.uniform(-6, 6, (images, groups, *grid.shape))) for name in ("three.1", "four.1")
    }
    write_points(folder / POINTS, Points(pictures, blocks))


def leave_progress(folder, step):
    """How far a running one is, of 100 steps, as a training leaves it."""
    progress = {"phase": "fit", "epoch": 2, "epochs": 5, "step": step, "steps": 100, "images_per_second": 200.0,
                "seconds_left": 100.0 - step, "metrics": {"val/acc1": 0.5}}  # fmt: skip
    (folder / "progress.json").write_text(json.dumps(progress))
