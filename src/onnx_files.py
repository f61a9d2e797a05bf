"""Networks as ONNX files, and what comes out of those. `python -m src.export` is what people use."""

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

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
