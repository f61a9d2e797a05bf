"""Where a step's time goes: shares by kind of operator, from torch's profiler."""

from collections.abc import Callable

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from src.benchmarks.measure import wait

# By what an operator's name begins with, the first that fits. What the fused kernels of this project do inside of
# themselves counts as what it is.
KINDS = (
    ("attention products", ("aten::bmm", "aten::baddbmm", "aten::_scaled_dot_product", "aten::_flash")),
    ("linear layers", ("aten::mm", "aten::addmm", "aten::linear")),
    (
        "convolutions",
        ("aten::mkldnn_conv", "aten::convolution", "aten::_slow_conv", "aten::cudnn_conv", "aten::_conv", "aten::conv"),
    ),
    ("GELU", ("aten::gelu",)),
    ("softmax", ("aten::_softmax",)),
    ("norms", ("aten::native_layer_norm", "NativeLayerNorm")),
    ("reading between pixels", ("aten::grid_sampler", "aten::embedding", "aten::_embedding", "aten::index_add")),
    (
        "copies and layout",
        ("aten::copy_", "aten::cat", "aten::stack", "aten::clone", "aten::contiguous", "aten::roll", "aten::_to_copy"),
    ),
    ("indices and windows", ("aten::index", "aten::_index", "aten::im2col", "aten::unfold", "aten::gather")),
    (
        "sums and scalings",
        ("aten::add", "aten::sub", "aten::mul", "aten::div", "aten::sum", "aten::fill", "aten::zero"),
    ),
)
REST = "the rest"


def kind_of(operator: str) -> str:
    """The kind of an operator by its name."""
    return next((kind for kind, beginnings in KINDS if operator.startswith(beginnings)), REST)


def shares(step: Callable[[], object], device: str) -> dict[str, float]:
    """Of one call's time on `device`, by kind; they add up to 1, the largest first. Call `step` once before."""
    gpu = device == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as profiled:
        step()
        wait(device)
    found: dict[str, float] = {}
    for event in profiled.key_averages():
        if event.device_type != DeviceType.CPU:
            continue  # a kernel, whose time its operator has too
        took = event.self_device_time_total if gpu else event.self_cpu_time_total
        kind = kind_of(event.key)
        found[kind] = found.get(kind, 0.0) + took
    total = sum(found.values())
    return dict(sorted(((kind, took / total) for kind, took in found.items()), key=lambda pair: -pair[1]))
