"""The 1x1 convolutions of a step by themselves: what is left if all else took no time.

They are three quarters of the arithmetic, and torch hands them to libraries that run at the processor's speed. So their
time is a floor, and says how much faster a network of these layers can become at all.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from src.benchmarks.networks import Step
from src.models.pointwise import Backend, Pointwise

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Product:
    """One product and its gradients, on random numbers."""

    backend: Backend
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    grad: Tensor

    def __call__(self) -> None:
        self.backend.product(self.x, self.weight, self.bias)
        self.backend.gradients(self.grad, self.x, self.weight)


class Products:
    """All 1x1 convolutions of a step of one of our networks, forward and backward, each as often as the step has it.

    Args:
        step: is taken once, without gradients, to see which there are.
    """

    def __init__(self, step: Step):
        seen: Counter[tuple[Backend, Shape, Shape, bool]] = Counter()
        with _watched(step.net, seen), torch.no_grad():
            step.loss()
        dtype = torch.bfloat16 if step.precision == "bfloat16" else torch.float32
        self._products = [(_product(*key, dtype, step.images.device), times) for key, times in seen.items()]

    def __call__(self) -> None:
        for product, times in self._products:
            for _ in range(times):
                product()


def _product(
    backend: Backend, x: Shape, weight: Shape, has_bias: bool, dtype: torch.dtype, device: torch.device
) -> Product:
    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=dtype, device=device)

    def image(*shape: int) -> Tensor:
        return random(*shape).contiguous(memory_format=torch.channels_last)

    bias = random(weight[0]) if has_bias else None
    return Product(backend, image(*x), random(*weight), bias, image(x[0], weight[0], *x[2:]))


@contextmanager
def _watched(net: torch.nn.Module, seen: Counter[tuple[Backend, Shape, Shape, bool]]) -> Iterator[None]:
    """Counts products by shapes. They are seen at the backend, since recomputed ones don't go through their layer."""

    def watch(choice: Callable[[str], Backend]) -> Callable[[str], Backend]:
        def watching(device: str) -> Backend:
            backend = choice(device)

            def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
                seen[backend, tuple(x.shape), tuple(weight.shape), bias is not None] += 1
                return backend.product(x, weight, bias)

            return Backend(product, backend.gradients)

        return watching

    layers = [module for module in net.modules() if isinstance(module, Pointwise)]
    before = [layer.choice for layer in layers]
    try:
        for layer in layers:
            layer.choice = watch(layer.choice)
        yield
    finally:
        for layer, choice in zip(layers, before, strict=True):
            layer.choice = choice
