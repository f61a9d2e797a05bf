"""1x1 convolutions by either library, and what is computed again in place of being kept: the same numbers."""

import pytest
import torch
import torch.nn.functional as F
from small_networks import small
from timm.layers import LayerNorm2d
from torch import nn

from src.benchmarks.measure import saved_bytes
from src.config import build_model, load_config
from src.models import pointwise
from src.models.block import Block
from src.models.pointwise import CHOICES, CONVOLUTION, LINEAR, Pointwise, choose_backend
from src.models.recomputed import gelu_then, normed_then


def image(dtype=torch.float64, channels=6):
    x = torch.randn(2, channels, 5, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def results(function, x, module):
    """Output, and gradients of the input and of all parameters."""
    module.zero_grad(set_to_none=True)
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = function(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in module.parameters())]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("backend", CHOICES)
def test_backends_agree_with_torch(backend, layout, bias):
    layer, x = Pointwise(6, 4, bias=bias).double(), image().detach().contiguous(memory_format=layout)
    choose_backend(layer, backend)
    plain = results(lambda x: F.conv2d(x, layer.weight, layer.bias), x, layer)
    torch.testing.assert_close(results(layer, x, layer), plain)


@pytest.mark.parametrize("backend", [LINEAR, CONVOLUTION])
def test_gradients_of_backends_are_those_of_autograd(backend):
    layer, x = Pointwise(6, 4).double(), image()
    grad = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    expected = torch.autograd.grad(backend.product(x, layer.weight, layer.bias), (x, *layer.parameters()), grad)
    torch.testing.assert_close(backend.gradients(grad, x.detach(), layer.weight.detach()), expected)


@pytest.mark.parametrize("backend", CHOICES)
def test_maps_stay_channels_last(backend):
    layer = Pointwise(6, 4).double()
    choose_backend(layer, backend)
    assert layer(image()).is_contiguous(memory_format=torch.channels_last)


def test_no_copy_is_made_of_a_map_that_is_channels_last():
    x = image()
    assert pointwise._pixels(x).data_ptr() == x.data_ptr()


class FeedForward(nn.Module):
    """A norm, two 1x1 convolutions and GELU, plainly or recomputed."""

    def __init__(self, backend):
        super().__init__()
        self.norm, self.expand, self.project = LayerNorm2d(6), Pointwise(6, 12), Pointwise(12, 4)
        with torch.no_grad():  # norms begin as ones and zeros, which hide mistakes
            for parameter in self.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
        choose_backend(self, backend)

    def plain(self, x):
        return self.project(F.gelu(self.expand(self.norm(x))))

    def forward(self, x):
        return gelu_then(self.project, normed_then(self.norm, self.expand, x))


@pytest.mark.parametrize("backend", CHOICES)
def test_recomputed_parts_give_the_same(backend):
    net, x = FeedForward(backend).double(), image()
    torch.testing.assert_close(results(net, x, net), results(net.plain, x, net))
    torch.autograd.gradcheck(net, [image()])
    torch.autograd.gradgradcheck(net, [image()])


@pytest.mark.parametrize("backend", CHOICES)
def test_recomputed_parts_give_the_same_under_autocast(backend):
    net, x = FeedForward(backend), image(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = (results(function, x, net) for function in (net, net.plain))
    for ours, plain in zip(found, expected, strict=True):
        assert ours.dtype == plain.dtype
        torch.testing.assert_close(ours, plain, rtol=0, atol=0.02 * plain.abs().max().item())  # 2.5 units of 8 bits


def test_what_is_computed_again_is_not_kept():
    net, x = FeedForward("linear"), image(torch.float32)
    pixels = x.numel() // 6 * 4
    assert saved_bytes(lambda: net(x), [*net.parameters(), x]) == 12 * pixels
    # And GELU's result, the norm's, and its means and deviations.
    assert saved_bytes(lambda: net.plain(x), [*net.parameters(), x]) == (12 + 12 + 6 + 2) * pixels


def test_frozen_weights_and_no_gradients():
    net = FeedForward("auto").double().requires_grad_(False)
    x = image()
    expected = torch.autograd.grad(net.plain(x).sum(), x)
    torch.testing.assert_close(torch.autograd.grad(net(x).sum(), x), expected)
    assert not net(x.detach()).requires_grad


def test_a_batch_of_networks():
    """`torch.func` goes through recomputed parts: seeds stacked in one program."""
    net, x = FeedForward("linear").double(), image().detach()
    stacked = {name: torch.stack([p.detach(), 2 * p.detach()]) for name, p in net.named_parameters()}

    def loss(parameters):
        return torch.func.functional_call(net, parameters, (x,)).square().sum()

    together = torch.func.vmap(torch.func.grad(loss))(stacked)
    for index in range(2):
        alone = torch.func.grad(loss)({name: p[index] for name, p in stacked.items()})
        torch.testing.assert_close({name: g[index] for name, g in together.items()}, alone)


@pytest.mark.parametrize(
    ("amd", "threads", "device", "expected"),
    [
        *[(True, 2, "cpu", CONVOLUTION), (True, 1, "cpu", LINEAR), (False, 2, "cpu", LINEAR)],
        *[(True, 2, "cuda", LINEAR), (False, 1, "cuda", LINEAR)],
    ],
)
def test_the_choice_follows_processor_and_threads(monkeypatch, amd, threads, device, expected):
    monkeypatch.setattr(pointwise, "AMD", amd)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert CHOICES["auto"](device) is expected
    assert CHOICES["linear"](device) is LINEAR
    assert CHOICES["convolution"](device) is CONVOLUTION


def test_exported_networks_have_convolutions(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert CHOICES["auto"]("cuda") is CONVOLUTION


def test_the_setting_reaches_every_layer():
    net = build_model(load_config("linear_backend=convolution"))
    layers = [module for module in net.modules() if isinstance(module, Pointwise)]
    assert len(layers) > 10
    assert {layer.choice("cuda") for layer in layers} == {CONVOLUTION}
    with pytest.raises(ValueError, match="linear_backend is 'mkl'; it must be one of auto, linear, convolution"):
        build_model(load_config("linear_backend=mkl"))


def test_all_1x1_convolutions_of_our_networks_are_pointwise():
    for release in ("dat", "datpp"):
        found = [type(m) for m in small(release).modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
        assert set(found) == {Pointwise}


@pytest.mark.parametrize("release", ["dat", "datpp"])
def test_maps_are_channels_last_from_stem_to_head(release):
    """No 1x1 convolution, norm or block gets a map that it would have to copy first."""
    net, seen = small(release), []
    choose_backend(net, "linear")
    kinds = (Pointwise, LayerNorm2d, Block)
    for name, module in net.named_modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda module, given, out, name=name: seen.append((name, given[0], out)))
    net(torch.randn(2, 3, 64, 64))
    assert len(seen) > 25
    for name, given, out in seen:
        if not name.endswith("to_kv"):  # what is read at points comes channel by channel
            assert given.is_contiguous(memory_format=torch.channels_last), f"into {name}"
        assert out.is_contiguous(memory_format=torch.channels_last), f"out of {name}"
