"""1x1 convolutions: a matrix product for each pixel, on maps whose channels lie side by side (channels last).

Three quarters of a network's time are in them, and torch computes the same product by other libraries depending on how
it is asked. `linear` asks for a matrix product of all pixels (on a CPU MKL, on CUDA cuBLAS), `convolution` for a
convolution (on a CPU with several threads oneDNN, on CUDA cuDNN). They agree but for rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Gradients = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Backend:
    """A way to compute 1x1 convolutions.

    Attributes:
        product: x (B, C, H, W), weight (C', C, 1, 1) and bias (C',) or None to (B, C', H, W).
        gradients: of that product: gradient of the output, x and weight to those of x, weight and bias.
    """

    product: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    gradients: Callable[[Tensor, Tensor, Tensor], Gradients]


def _pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) as (B * H * W, C), a view of a map that is channels last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _map(pixels: Tensor, like: Tensor) -> Tensor:
    """The way back, to the batch, height and width of `like`."""
    batch, _, height, width = like.shape
    return pixels.view(batch, height, width, pixels.shape[1]).permute(0, 3, 1, 2)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _map(F.linear(_pixels(x), weight.flatten(1), bias), x)


def _linear_gradients(grad: Tensor, x: Tensor, weight: Tensor) -> Gradients:
    pixels = _pixels(grad)
    of_weight = (pixels.t() @ _pixels(x))[:, :, None, None]
    return _map(pixels @ weight.flatten(1), x), of_weight, pixels.sum(0)


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x, weight, bias)


def _convolution_gradients(grad: Tensor, x: Tensor, weight: Tensor) -> Gradients:
    plain = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)  # stride, padding, dilation, transposed, output padding, groups
    found: Gradients = torch.ops.aten.convolution_backward(
        grad, x, weight, [weight.shape[0]], *plain, [True, True, True]
    )
    return found


LINEAR = Backend(_linear, _linear_gradients)
CONVOLUTION = Backend(_convolution, _convolution_gradients)


def _linear_everywhere(device: str) -> Backend:
    return LINEAR


def _convolution_everywhere(device: str) -> Backend:
    return CONVOLUTION


def _auto(device: str) -> Backend:
    """Convolutions on AMD's processors with several threads and in exported networks, matrix products elsewhere.

    A rule and no probe: it must be the same for a run that goes on, and for two runs that are compared. On a Zen 5
    processor MKL has half the speed of oneDNN, on a Zen 4 processor about the same; with one thread torch doesn't ask
    oneDNN. Other programs know convolutions, and lay out their maps as they like.
    """
    if torch.compiler.is_exporting():
        return CONVOLUTION
    if torch.compiler.is_compiling():  # can't ask for the number of threads
        return LINEAR
    return CONVOLUTION if device == "cpu" and AMD and torch.get_num_threads() > 1 else LINEAR


def _processor_of_amd() -> bool:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.startswith("vendor_id") and "AMD" in line for line in lines)


AMD = _processor_of_amd()

# By the name of `linear_backend`: the type of a device to the backend on it.
CHOICES: dict[str, Callable[[str], Backend]] = {
    "auto": _auto,
    "linear": _linear_everywhere,
    "convolution": _convolution_everywhere,
}


class Pointwise(nn.Conv2d):
    """A 1x1 convolution; its parameters have the names and shapes of torch's.

    Attributes:
        choice: of the backend; `choose_backend` sets it for a whole network.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True):
        super().__init__(in_channels, out_channels, 1, bias=bias)
        self.choice: Callable[[str], Backend] = _auto

    def forward(self, x: Tensor) -> Tensor:
        return self.choice(x.device.type).product(x, self.weight, self.bias)


def choose_backend(net: nn.Module, name: str) -> None:
    """Has all 1x1 convolutions of `net` computed as the setting `linear_backend` says.

    Raises:
        ValueError: there is no such backend.
    """
    if name not in CHOICES:
        raise ValueError(f"linear_backend is {name!r}; it must be one of {', '.join(CHOICES)}")
    for module in net.modules():
        if isinstance(module, Pointwise):
            module.choice = CHOICES[name]
