"""An ONNX file of a network: `python -m src.export dat_tiny -o dat_tiny.onnx`.

The file takes batches of any number of images, of the one size that it is written for. Any model of timm's does that
can be exported, ours among them (`src/models/registry.py`).
"""

import argparse
import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

OPSET = 20  # the first with which operators for bilinear reading are as torch's


class NotInstalled(RuntimeError):
    """A package of the extra `export` is missing."""


def to_onnx(net: nn.Module, path: Path, *, image_size: tuple[int, int], channels: int = 3) -> None:
    """Writes `net`, in evaluation mode, as ONNX from images (batch, C, H, W) to logits.

    Raises:
        NotInstalled: the packages that it takes.
    """
    if missing := [package for package in ("onnx", "onnxscript") if importlib.util.find_spec(package) is None]:
        raise NotInstalled(f'{" and ".join(missing)} not installed: pip install "datlab[export]"')
    # Two images: with one, torch takes the batch for a constant.
    images = (torch.zeros(2, channels, *image_size),)
    with _quietly():
        torch.onnx.export(
            net.eval(),
            images,
            path,
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )


def difference(net: nn.Module, path: Path, images: Tensor) -> float:
    """The largest difference between the logits of the file, in onnxruntime, and of `net`, relative to the largest.

    Raises:
        NotInstalled: onnxruntime.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise NotInstalled('onnxruntime not installed: pip install "datlab[export]"')
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = net.eval()(images)
    return float((torch.from_numpy(logits) - expected).abs().max() / expected.abs().max())


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's remarks on its own operators."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        registration.setLevel(level)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="dat_tiny, datpp_base, or another name of timm's")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the ONNX file to write")
    parser.add_argument("--weights", type=Path, help="a safetensors file, such as python -m src.checkpoint writes")
    parser.add_argument("--classes", type=int, default=1000, help="of the weights; 1000 unless told")
    parser.add_argument("--image-size", type=int, help="height and width in pixels; the model's own unless told")
    arguments = parser.parse_args()
    try:
        said = export(arguments)
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {' '.join(str(error).split())[:300]}\n")  # torch says it in many lines
    print(said)


def export(arguments: argparse.Namespace) -> str:
    """What the command does; returns what it says."""
    import timm  # after the arguments are known to be right: it takes seconds

    import src.models  # noqa: F401 (our names)
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
    main()
