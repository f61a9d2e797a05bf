"""Where the points of a trained baseline go: `python experiments/demo/figure.py RUN_FOLDER`, a run of `make demo`."""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from src.callbacks.offset_diagnostics import deformable_blocks
from src.config import build, build_model
from src.runs.record import read_record

SCENES = 5
MOVED, STILL = "#d55e00", "#0072b2"  # told apart by the colour-blind


def points_of(record: dict, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray, str]:
    """Reference points (P, xy) and points (B, G, P, xy) of the first deformable block, in pixels of the image."""
    net = build_model(record["config"]).eval()
    saved = torch.load(Path(record["folder"]) / "checkpoints" / "best.ckpt", weights_only=True, map_location="cpu")
    weights = {key.removeprefix("net."): value for key, value in saved["state_dict"].items() if key.startswith("net.")}
    net.load_state_dict(weights)
    (stage, block), *_ = deformable_blocks(net)
    seen = {}
    block.sampling.register_forward_pre_hook(lambda _, given: seen.update(map=given[0].shape[2:], points=given[1]))
    with torch.no_grad():
        net(images)
    points, (height, width) = seen["points"], seen["map"]
    reference = block.reference_grid.keys((height, width), points.shape[2:4], points.device)
    side = images.shape[-1]

    def pixels(yx: torch.Tensor) -> np.ndarray:
        """From -1..1, the centres of the border pixels of the map, to pixels of the image."""
        pixel = (yx + 1) / 2 * torch.tensor([height - 1, width - 1]) + 0.5
        return (pixel * torch.tensor([side / height, side / width]) - 0.5).flip(-1).numpy()

    return pixels(reference).reshape(-1, 2), pixels(points).reshape(*points.shape[:2], -1, 2), stage


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
    reference, points, stage = points_of(record, torch.stack([scene.image for scene in scenes]))
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
