"""Where the points of a trained baseline go: `python experiments/demo/figure.py RUN_FOLDER`, a run of `make demo`."""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from src.config import build
from src.looking.points import of_run
from src.runs.record import read_record

SCENES = 5
MOVED, STILL = "#d55e00", "#0072b2"  # told apart by the colour-blind


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("points.png"))
    arguments = parser.parse_args()
    record = read_record(arguments.run)
    if record is None or record["status"] != "finished":
        parser.error(f"{arguments.run} is no finished run; make demo trains one")

    data = build(record["config"]["data"])
    scenes = [data.scene(number, "test") for number in range(SCENES)]
    found = of_run(record, SCENES)
    name, block = next(iter(found.blocks.items()))
    stage = name.partition(".")[0]
    reference, points = block.reference, block.points
    figure, axes = plt.subplots(1, SCENES, figsize=(2.2 * SCENES, 2.75), dpi=160)
    for axis, scene, moved in zip(axes, scenes, points, strict=True):
        ink = scene.image[0] - scene.image.min()
        axis.imshow(ink, cmap="gray_r", vmax=2 * ink.max(), interpolation="bilinear")  # grey, so that points show on it
        for group in moved:
            axis.quiver(
                *reference.T, *(group - reference).T, color=MOVED, angles="xy", scale_units="xy", scale=1, width=0.012
            )
        axis.scatter(*reference.T, s=9, color=STILL, zorder=3)
        axis.set_title(f"a {scene.label}", fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    accuracy = 100 * record["metrics"]["test/acc1"]
    figure.suptitle(
        f"Stage {stage}: from the reference grid (blue) to where keys are read (orange, an arrow a group). "
        f"Baseline, seed {record['seed']}, test top-1 {accuracy:.1f} %",
        fontsize=10,
    )
    figure.tight_layout()
    figure.savefig(arguments.out, facecolor="white")


if __name__ == "__main__":
    main()
