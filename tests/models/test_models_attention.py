"""Contracts that every combination of parts keeps, and identities that hold exactly."""

import itertools
from functools import partial

import pytest
import torch
from torch import nn

from src.models.attention.attend import attend
from src.models.attention.deformable import Deformable
from src.models.attention.spatial_reduction import SpatialReduction
from src.models.attention.window import ShiftedWindow, ShiftedWindowAttention, Window, WindowAttention
from src.models.geometry import GeometryError
from src.models.local_encoding import DepthwiseEncoding, NoEncoding
from src.models.offset import LearnedOffset, ZeroOffset
from src.models.offset_range import BoundedRange, TanhPositions, UnboundedRange
from src.models.position_bias import FixedBias, NoBias, RelativeBias
from src.models.reference_grid import AlignedGrid, PublishedGrid
from src.models.sampling import AveragePooling, BilinearSampling
from src.models.stage import Stage
from src.models.stem import OverlappedStem, PatchStem

# A new variant joins its list and inherits the contracts.
OFFSETS = [LearnedOffset, ZeroOffset]
BOUNDED = partial(BoundedRange, factor=2)
RANGES = [BOUNDED, UnboundedRange, TanhPositions]
GRIDS = [PublishedGrid, AlignedGrid]
SAMPLINGS = [BilinearSampling, AveragePooling]
BIASES = [RelativeBias, FixedBias, NoBias]
ENCODINGS = [DepthwiseEncoding, NoEncoding]
STEMS = [PatchStem, OverlappedStem]

BASELINE = {
    "offset": LearnedOffset,
    "offset_range": BOUNDED,
    "reference_grid": PublishedGrid,
    "sampling": BilinearSampling,
    "position_bias": RelativeBias,
    "local_encoding": NoEncoding,
}
AXES = dict(zip(BASELINE, [OFFSETS, RANGES, GRIDS, SAMPLINGS, BIASES, ENCODINGS], strict=True))

STAGE = Stage(
    name="three",
    map_size=(12, 8),  # unequal sides catch swapped axes
    dim=24,
    depth=2,
    num_heads=6,
    attention=("window", "deformable"),
    window_size=4,
    offset_groups=3,
    stride=2,
    offset_kernel_size=5,
    reduction=2,
)


def build(seed=0, **parts):
    torch.manual_seed(seed)
    return Deformable(**BASELINE | parts).build(STAGE)


def image(dtype=torch.float32):
    return torch.randn(2, STAGE.dim, *STAGE.map_size, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("parts", list(itertools.product(*AXES.values())), ids=lambda parts: "")
def test_every_combination_keeps_shape_and_trains_every_parameter(parts):
    attention = build(**dict(zip(AXES, parts, strict=True)))
    y = attention(image())
    y.square().mean().backward()
    assert y.shape == image().shape and y.isfinite().all()
    unused = [name for name, p in attention.named_parameters() if p.grad is None]
    # Points mean nothing to average pooling, unless the relative bias reads its table at them.
    points_matter = attention.sampling.__class__ is BilinearSampling or parts[4] is RelativeBias
    assert not [name for name in unused if points_matter or not name.startswith("offset.")]


@pytest.mark.parametrize("kind", [Window(), ShiftedWindow(), SpatialReduction()], ids=lambda kind: type(kind).__name__)
def test_other_kinds_keep_shape_and_train_every_parameter(kind):
    kind.check(STAGE)
    attention = kind.build(STAGE)
    y = attention(image())
    y.square().mean().backward()
    assert y.shape == image().shape
    assert [name for name, p in attention.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("axis", "variant"), [(axis, v) for axis, variants in AXES.items() for v in variants if v is not BASELINE[axis]]
)
def test_a_variant_changes_outputs_and_gradients(axis, variant):
    shared = build(seed=0).state_dict()
    results = []
    for parts in ({}, {axis: variant}):
        attention = build(seed=0, **parts)
        own = attention.state_dict()
        same = {k: v for k, v in shared.items() if k in own and own[k].shape == v.shape}
        attention.load_state_dict(own | same)  # whatever both have is equal; only the axis differs
        for name, parameter in attention.named_parameters():
            if name.endswith("bias_table"):  # tables begin near zero; larger ones show
                nn.init.normal_(parameter, generator=torch.Generator().manual_seed(3))
        x = image().requires_grad_()
        y = attention(x)
        y.square().sum().backward()
        results.append((y.detach(), x.grad))
    (y, grad), (y2, grad2) = results
    assert (y - y2).abs().max() > 1e-4 * y.abs().max()
    assert (grad - grad2).abs().max() > 1e-4 * grad.abs().max()


def test_points_on_the_pixels_give_plain_attention():
    """Aligned grid, stride 1, no offsets, no bias: softmax(q k^T / sqrt(d)) v over all pixels."""
    stage = Stage(**{**vars(STAGE), "stride": 1})
    parts = BASELINE | {"offset": ZeroOffset, "reference_grid": AlignedGrid, "position_bias": NoBias}
    attention, x = Deformable(**parts).build(stage), image()
    k, v = attention.to_kv(x).chunk(2, dim=1)
    q, k, v = (t.reshape(2, 6, 4, -1).transpose(2, 3) for t in (attention.to_q(x), k, v))
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape)
    torch.testing.assert_close(attention(x), attention.proj(plain), rtol=1e-5, atol=1e-6)


def test_range_factor_zero_is_zero_offset():
    still, learned = build(offset=ZeroOffset), build(offset_range=partial(BoundedRange, factor=0))
    learned.load_state_dict(still.state_dict() | {k: v for k, v in learned.state_dict().items() if "offset" in k})
    torch.testing.assert_close(learned(image()), still(image()))


@pytest.mark.parametrize("factor", [1, 4])
def test_bounded_points_stay_within_half_the_factor_of_their_cell(factor):
    attention = build(offset_range=partial(BoundedRange, factor=factor))
    with torch.no_grad():
        attention.offset.net[-1].weight.mul_(1e4)  # saturates the tanh
    points = attention.choose_points(attention.to_q(image()))
    reference = attention.reference_grid.keys(STAGE.map_size, STAGE.key_map_size, points.device)
    cells = (points - reference) / 2 * torch.tensor(STAGE.key_map_size)
    assert cells.abs().max().item() == pytest.approx(factor / 2, rel=1e-3)


def test_groups_read_at_their_own_points():
    attention, x = build(), image()
    points = attention.choose_points(attention.to_q(x))
    moved = points.clone()
    moved[:, 1] += 0.3
    before, after = attention.sampling(x, points), attention.sampling(x, moved)
    changed = (before - after).abs().amax(dim=(0, 2, 3)) > 1e-4
    assert changed.tolist() == [False] * 8 + [True] * 8 + [False] * 8


def test_aligned_grid_stands_in_the_middle_of_its_cells():
    keys = AlignedGrid().keys((12, 8), (6, 4), torch.device("cpu"))
    pixels = (keys + 1) / 2 * torch.tensor([11, 7])
    torch.testing.assert_close(pixels[:, 0, 0], torch.arange(6) * 2 + 0.5)
    torch.testing.assert_close(pixels[0, :, 1], torch.arange(4) * 2 + 0.5)


def test_published_grid_is_half_a_pixel_off_at_the_border():
    """Quirk `half_pixel_grid_on_corner_aligned_map`."""
    keys = PublishedGrid().keys((14, 14), (14, 14), torch.device("cpu"))
    pixels = (keys[:, 0, 0] + 1) / 2 * 13
    torch.testing.assert_close(pixels, (torch.arange(14) + 0.5) / 14 * 13)
    assert pixels[0] == pytest.approx(13 / 28)


def test_tanh_positions_draw_the_grid_together():
    """Quirk `tanh_moves_the_grid`."""
    attention = build(offset=ZeroOffset, offset_range=TanhPositions)
    points = attention.choose_points(attention.to_q(image()))
    assert points.abs().max() < torch.tensor(1.0).tanh()


def test_shifted_windows_hide_what_was_not_neighbouring():
    """Quirk `mask_of_minus_100`; a pixel of the first row doesn't see the last row that was rolled next to it."""
    attention = ShiftedWindowAttention(8, 2, window_size=4, shift=2, map_size=(8, 8)).double()
    assert attention.mask.unique().tolist() == [-100.0, 0.0]
    x = torch.randn(1, 8, 8, 8, dtype=torch.float64)
    other = x.clone()
    other[:, :, -1] += 1.0
    torch.testing.assert_close(attention(x)[:, :, 0], attention(other)[:, :, 0])
    assert not torch.allclose(attention(x)[:, :, -2], attention(other)[:, :, -2])


def test_one_window_is_not_shifted():
    stage = Stage(**{**vars(STAGE), "map_size": (4, 4)})
    assert type(ShiftedWindow().build(stage)) is WindowAttention
    assert type(ShiftedWindow().build(STAGE)) is ShiftedWindowAttention


def test_attend_is_scaled_dot_product_attention():
    q, k, v = (torch.randn(2, 3, n, 4) for n in (5, 7, 7))
    bias = torch.randn(3, 5, 7)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, bias)
    torch.testing.assert_close(attend(q, k, v, bias), expected)


@pytest.mark.parametrize("position_bias", BIASES)
@pytest.mark.parametrize("offset_range", RANGES)
def test_gradients_in_float64(offset_range, position_bias):
    attention = build(offset_range=offset_range, position_bias=position_bias).double()
    x = image(torch.float64)[:1].requires_grad_()
    with torch.no_grad():
        for p in attention.offset.net[-1].parameters():
            p.mul_(0.1)
    loss = attention(x).square().sum()
    (grad,) = torch.autograd.grad(loss, x)
    direction = torch.randn_like(x)
    step = 1e-7
    with torch.no_grad():
        slope = (attention(x + step * direction).square().sum() - attention(x - step * direction).square().sum()) / (
            2 * step
        )
    assert slope.item() == pytest.approx((grad * direction).sum().item(), rel=1e-4)


def test_positions_stay_in_float32_under_autocast():
    """Given the same queries, bfloat16 elsewhere doesn't move a point."""
    attention, x = build(), image()
    with torch.no_grad():
        q = attention.to_q(x)
        exact = attention.choose_points(q)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            points = attention.choose_points(q)
            seen = []
            attention.sampling.register_forward_pre_hook(lambda module, given: seen.append(given[1]))
            attention(x)
    assert points.dtype == seen[0].dtype == torch.float32
    assert torch.equal(points, exact)
    # Through the whole block the queries themselves are rounded, which moves points by far less than a grid in bfloat16
    # would: 2^-8 of the map is a tenth of a pixel at 56x56.
    assert (seen[0] - exact).abs().max() < 2**-8


@pytest.mark.parametrize("patch_size", [2, 4])
@pytest.mark.parametrize("stem", STEMS)
def test_stems_divide_the_image_and_train_every_parameter(stem, patch_size):
    module = stem(8, patch_size)
    y = module(torch.randn(2, 3, 16, 24))
    y.square().mean().backward()
    assert y.shape == (2, 8, 16 // patch_size, 24 // patch_size)
    assert all(p.grad is not None for p in module.parameters())


def test_the_overlapped_stem_refuses_other_patches():
    with pytest.raises(GeometryError, match=r"patch_size 3 .* 2 and 4"):
        OverlappedStem(8, 3)
