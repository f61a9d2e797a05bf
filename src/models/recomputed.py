"""A norm or GELU, and the 1x1 convolution after it: what lies between the two isn't kept for the gradient.

Autograd would keep the input of each: a feed-forward network's hidden map, four times as large as its input, before
GELU and after it. Both are cheap beside the convolution, so they are computed again from what must be kept anyway: a
quarter less memory in training, for 1 % more time or less.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from src.models.pointwise import Backend, Pointwise

NO_NORM = nn.Identity()


def normed_then(norm: nn.Module, layer: Pointwise, x: Tensor) -> Tensor:
    """layer(norm(x)), for x (B, C, H, W)."""
    if torch.compiler.is_compiling() or type(norm) is not LayerNorm2d:  # a compiler decides itself what is kept
        return layer(norm(x))
    backend, eps = layer.choice(x.device.type), norm.eps
    return _apply(_NormThenProduct, x, norm.weight, norm.bias, layer.weight, layer.bias, eps, backend)


def gelu_then(layer: Pointwise, x: Tensor) -> Tensor:
    """layer(gelu(x)), for x (B, C, H, W)."""
    if torch.compiler.is_compiling():
        return layer(F.gelu(x))
    return _apply(_GeluThenProduct, x, layer.weight, layer.bias, layer.choice(x.device.type))


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    apply: Callable[..., Tensor] = function.apply
    return apply(*arguments)


class _NormThenProduct(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, eps: float, backend: Backend
    ) -> Tensor:
        return backend.product(_normed(x, scale, shift, eps)[0].permute(0, 3, 1, 2), weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, _, ctx.eps, ctx.backend = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, scale, shift, weight = ctx.saved_tensors
        normed, mean, inverse = _normed(x, scale, shift, ctx.eps)
        of_normed, of_weight, of_bias = _gradients(ctx.backend, grad, normed.permute(0, 3, 1, 2), weight)
        of_normed = of_normed.permute(0, 2, 3, 1).to(x.dtype)
        pixels, dim, all_three = x.permute(0, 2, 3, 1), [x.shape[1]], [True, True, True]
        of_x, of_scale, of_shift = torch.ops.aten.native_layer_norm_backward(
            of_normed, pixels, dim, mean, inverse, scale, shift, all_three
        )
        return of_x.permute(0, 3, 1, 2), of_scale, of_shift, of_weight, of_bias, None, None


class _GeluThenProduct(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, backend: Backend) -> Tensor:
        return backend.product(_gelu(x), weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, ctx.backend = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        of_gelu, of_weight, of_bias = _gradients(ctx.backend, grad, _gelu(x), weight)
        return _gelu_backward(of_gelu, x), of_weight, of_bias, None


def _gelu(x: Tensor) -> Tensor:
    """Of the map as rows of channels: torch's kernel takes almost twice as long for a map that is channels last."""
    return F.gelu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _gelu_backward(grad: Tensor, x: Tensor) -> Tensor:
    pixels: Tensor = torch.ops.aten.gelu_backward(grad.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1))
    return pixels.permute(0, 3, 1, 2)


def _normed(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(B, H, W, C) with its means and inverse deviations."""
    normed: tuple[Tensor, Tensor, Tensor] = torch.native_layer_norm(
        x.permute(0, 2, 3, 1), [x.shape[1]], scale, shift, eps
    )
    return normed


def _gradients(backend: Backend, grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Under autocast the product was computed in another type than the weights', which `grad` has."""
    of_x, of_weight, of_bias = backend.gradients(grad, x.to(grad.dtype), weight.to(grad.dtype))
    return of_x, of_weight.to(weight.dtype), of_bias.to(weight.dtype)
