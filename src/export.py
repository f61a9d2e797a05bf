"""An ONNX file of a network: `python -m src.export dat_tiny -o dat_tiny.onnx`.

The file takes batches of any number of images, of the one size that it is written for. Any model of timm's does that
can be exported, ours among them (`src/models/registry.py`).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.commands import command

LONGEST = 300  # characters of an error: torch says it in many lines


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the file, and says how it differs."""
    parser = argparse.ArgumentParser(
        prog="python -m src.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="dat_tiny, datpp_base, or another name of timm's")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the ONNX file to write")
    parser.add_argument("--weights", type=Path, help="a safetensors file, such as python -m src.checkpoint writes")
    parser.add_argument("--classes", type=int, default=1000, help="of the weights; 1000 unless told")
    parser.add_argument("--image-size", type=int, help="height and width in pixels; the model's own unless told")
    options = parser.parse_args(arguments)
    try:
        print(export(options))
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(" ".join(str(error).split())[:LONGEST]) from error


def export(arguments: argparse.Namespace) -> str:
    """What the command does; returns what it says."""
    import timm  # after the arguments are known to be right: it takes seconds
    import torch

    import src.models  # noqa: F401 (our names)
    from src.onnx_files import NotInstalled, difference, to_onnx
    from src.timm_models import own_size

    if not timm.is_model(arguments.model):
        raise ValueError(f"no model {arguments.model!r}; ours are {', '.join(timm.list_models(module='registry'))}")
    options: dict[str, Any] = {"num_classes": arguments.classes}
    if arguments.image_size:
        options["img_size"] = arguments.image_size
    if arguments.weights:
        overlay = {"file": str(arguments.weights), "num_classes": arguments.classes}
        options |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
    net = timm.create_model(arguments.model, **options)
    side = arguments.image_size or own_size(arguments.model)
    to_onnx(net, arguments.output, image_size=(side, side))
    written = f"{arguments.output}: {arguments.model}, images of {side}x{side}"
    try:
        off = difference(net, arguments.output, torch.randn(1, 3, side, side))
    except NotInstalled as error:
        return f"{written}; not checked, {error}"
    return f"{written}; differs from torch by {off:.1e} of the largest logit"


if __name__ == "__main__":
    sys.exit(main())
