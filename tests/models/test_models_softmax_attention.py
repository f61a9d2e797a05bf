"""Attention whose weights are kept once is the plain formula, with all its derivatives."""

import pytest
import torch

from src.benchmarks.measure import saved_bytes
from src.models.softmax_attention import attend_dense, attention_weights

BIASES = {
    "none": None,
    "every image": (2, 3, 5, 7),
    "shared by images": (3, 5, 7),
    "shared by heads": (2, 1, 5, 7),
    "a number for each key": (7,),
}


def example(bias="shared by images", dtype=torch.float64):
    """q, k, v and a bias, all with gradients; None where there is no bias."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4), BIASES[bias]]

    def normal(shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    return [None if shape is None else normal(shape) for shape in shapes]


def plain(q, k, v, bias):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return (scores if bias is None else scores + bias).softmax(-1) @ v


def gradients(attend, arguments):
    output = attend(*arguments)
    wanted = [t for t in arguments if t is not None and t.requires_grad]
    return [output, *torch.autograd.grad(output.sin().sum(), wanted)]


@pytest.mark.parametrize("bias", BIASES)
def test_it_is_the_plain_formula(bias):
    torch.testing.assert_close(gradients(attend_dense, example(bias)), gradients(plain, example(bias)))


def test_a_mask_hides_keys():
    """Minus infinity for some keys of a query; gradients are numbers."""
    mask = torch.zeros(5, 7, dtype=torch.float64).masked_fill(
        torch.arange(7) > torch.arange(5)[:, None] + 1, -torch.inf
    )
    q, k, v, _ = example()
    assert attention_weights(q, k, mask)[..., 0, 2:].count_nonzero() == 0
    found, expected = (gradients(attend, [q, k, v, mask]) for attend in (attend_dense, plain))
    torch.testing.assert_close(found, expected)
    assert all(t.isfinite().all() for t in found)


@pytest.mark.parametrize("frozen", range(4))
def test_what_is_frozen_has_no_gradient(frozen):
    arguments = example()
    arguments[frozen].requires_grad_(False)
    torch.testing.assert_close(gradients(attend_dense, arguments), gradients(plain, arguments))
    attend_dense(*arguments).sum().backward()
    assert arguments[frozen].grad is None


@pytest.mark.parametrize("bias", ["none", "shared by images"])
def test_derivatives_against_differences(bias):
    arguments = [t for t in example(bias) if t is not None]
    torch.autograd.gradcheck(attend_dense, arguments)
    torch.autograd.gradgradcheck(attend_dense, arguments)


def test_second_derivatives_of_functions():
    """`torch.func` too knows that the weights depend on q, k and the bias."""

    def twice(attend):
        def first(*arguments):
            return sum(g.square().sum() for g in torch.func.grad(lambda *t: attend(*t).sum(), (0, 1, 2, 3))(*arguments))

        return torch.func.grad(first, (0, 1, 2, 3))(*(t.detach() for t in example()))

    torch.testing.assert_close(twice(attend_dense), twice(plain))


def test_a_batch_of_attentions():
    """Each with tensors of its own, and one bias for all."""
    *maps, bias = (t.detach() for t in example())
    stacked = [torch.stack([t, 2 * t]) for t in maps]

    def first(*arguments):
        return torch.func.grad(lambda *t: attend_dense(*t).square().sum(), (0, 1, 2, 3))(*arguments)

    together = torch.func.vmap(first, (0, 0, 0, None))(*stacked, bias)
    for index in range(2):
        torch.testing.assert_close(tuple(g[index] for g in together), first(*(t[index] for t in stacked), bias))


@pytest.mark.parametrize("given", [torch.bfloat16, torch.float32])
def test_autocast_keeps_the_weights_once_in_its_type(given):
    """Whatever the type of what is given; the bias is added in its own."""
    q, k, v, bias = example(dtype=torch.float32)
    q, k, v = (t.detach().to(given).requires_grad_() for t in (q, k, v))

    def attend():
        with torch.autocast("cpu", torch.bfloat16):
            return attend_dense(q, k, v, bias)

    assert saved_bytes(attend) == 2 * (q.numel() + k.numel() + v.numel() + 2 * 3 * 5 * 7)
    found = torch.autograd.grad(attend().sum(), (q, k, v, bias))
    assert attend().dtype == torch.bfloat16 and [t.dtype for t in found] == [given] * 3 + [torch.float32]
    exact = [t.detach().double().requires_grad_() for t in (q, k, v, bias)]
    for ours, expected in zip(found, torch.autograd.grad(plain(*exact).sum(), exact), strict=True):
        assert (ours - expected).abs().max() < 2**-5 * max(expected.abs().max(), 1)


def test_compilers_keep_what_they_like():
    arguments = example(dtype=torch.float32)
    compiled = torch.compile(attend_dense, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradients(compiled, arguments), gradients(attend_dense, arguments))
