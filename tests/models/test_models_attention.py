"""Contracts that every combination of parts keeps, and identities that hold exactly."""

import itertools
from dataclasses import replace
from functools import partial

import pytest
import torch
from timm.layers import LayerNorm2d
from torch import nn

from src.benchmarks.measure import saved_bytes
from src.models import bilinear
from src.models.attention.attend import attend
from src.models.attention.deformable import Deformable
from src.models.attention.deformable_convolution import DeformableConvolutions
from src.models.attention.neighborhood import Neighborhood
from src.models.attention.pooling import AveragePooling as Pooling
from src.models.attention.spatial_reduction import SpatialReduction
from src.models.attention.whole import Global
from src.models.attention.window import ShiftedWindow, ShiftedWindowAttention, Window
from src.models.downsampling import OverlappedDownsampling, PatchDownsampling
from src.models.feed_forward import ConvolutionalFeedForward, PixelwiseFeedForward
from src.models.geometry import GeometryError
from src.models.layer_scale import LearnedScale, NoScale
from src.models.local_encoding import DepthwiseEncoding, NoEncoding
from src.models.local_perception import DepthwisePerception, NoPerception
from src.models.offset import LearnedOffset, ZeroOffset
from src.models.offset_range import BoundedRange, BoundedSteps, ClampedPositions, TanhPositions, UnboundedRange
from src.models.position_bias import ContinuousBias, FixedBias, NoBias, RelativeBias
from src.models.reference_grid import AlignedGrid, PublishedGrid, ShiftedGrid
from src.models.sampling import AveragePooling, BilinearSampling
from src.models.stage import Stage
from src.models.stem import OverlappedStem, PatchStem

# A new variant joins its list and inherits the contracts.
OFFSETS = [LearnedOffset, ZeroOffset]
BOUNDED = partial(BoundedRange, factor=2)
RANGES = [BOUNDED, partial(BoundedSteps, factor=2), UnboundedRange, TanhPositions, ClampedPositions]
GRIDS = [PublishedGrid, AlignedGrid, ShiftedGrid]
BILINEAR, RELATIVE = partial(BilinearSampling, kernel="auto"), partial(RelativeBias, kernel="auto")
SAMPLINGS = [BILINEAR, AveragePooling]
BIASES = [RELATIVE, ContinuousBias, FixedBias, NoBias]
ENCODINGS = [DepthwiseEncoding, NoEncoding]
STEMS = [PatchStem, OverlappedStem]
DOWNSAMPLINGS = [PatchDownsampling, OverlappedDownsampling]
# What a block has beside its attention, built for 24 channels.
BLOCK_PARTS = {
    "pixelwise": lambda: PixelwiseFeedForward(24, 48),
    "convolutional": lambda: ConvolutionalFeedForward(24, 48),
    "perception": lambda: DepthwisePerception(24),
    "no perception": lambda: NoPerception(24),
    "scale": lambda: LearnedScale(24, initial=0.1),
    "no scale": lambda: NoScale(24),
}
KINDS = [
    Window(),
    ShiftedWindow(),
    SpatialReduction(),
    Neighborhood(),
    Global(),
    DeformableConvolutions(),
    Pooling(),
]

BASELINE = {
    "offset": LearnedOffset,
    "offset_range": BOUNDED,
    "reference_grid": PublishedGrid,
    "sampling": BILINEAR,
    "position_bias": RELATIVE,
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
    neighborhood_size=5,
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
    points_matter = attention.sampling.__class__ is BilinearSampling or parts[4] in (RELATIVE, ContinuousBias)
    assert not [name for name in unused if points_matter or not name.startswith("offset.")]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
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
    attention = ShiftedWindowAttention(8, 2, window_size=4, shift=2).double()
    x = torch.randn(1, 8, 8, 8, dtype=torch.float64)
    other = x.clone()
    other[:, :, -1] += 1.0
    torch.testing.assert_close(attention(x)[:, :, 0], attention(other)[:, :, 0])
    assert not torch.allclose(attention(x)[:, :, -2], attention(other)[:, :, -2])


def test_one_window_is_not_shifted():
    shifted, plain, x = ShiftedWindow().build(STAGE), Window().build(STAGE), torch.randn(2, 24, 4, 4)
    plain.load_state_dict(shifted.state_dict())
    torch.testing.assert_close(shifted(x), plain(x))
    torch.testing.assert_close(shifted(x[:, :, :, :3]), plain(x[:, :, :, :3]))
    wide = torch.randn(2, 24, 4, 8)
    assert shifted.shifts(4, 8) == (0, 2), "along x alone"
    assert (shifted(wide) - plain(wide)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [*KINDS, Deformable(**BASELINE)], ids=lambda kind: type(kind).__name__)
def test_a_norm_before_is_the_same_inside(kind):
    attention, norm, x = (
        kind.build(STAGE).double(),
        LayerNorm2d(STAGE.dim, eps=1e-5).double(),
        image(dtype=torch.float64),
    )
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    leaves = [x.requires_grad_(), *norm.parameters(), *attention.parameters()]
    inside, before = attention(x, norm), attention(norm(x))
    torch.testing.assert_close(inside, before)
    grads = (torch.autograd.grad(y.square().sum(), leaves, allow_unused=True) for y in (inside, before))
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(
    "kind", [Window(), ShiftedWindow(), Neighborhood(), Global(), Pooling()], ids=lambda k: type(k).__name__
)
def test_what_a_norm_makes_is_not_kept_where_one_layer_reads_it(kind):
    attention, norm, x = kind.build(STAGE), LayerNorm2d(STAGE.dim, eps=1e-5), torch.randn(2, STAGE.dim, 8, 8)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    there = [x, *attention.parameters(), *attention.buffers(), *norm.parameters()]
    inside, before = (saved_bytes(f, there) for f in (lambda: attention(x, norm), lambda: attention(norm(x))))
    rolled = x.nbytes if isinstance(kind, ShiftedWindow) else 0  # the rolled map is another, kept in its place
    assert before - inside == x.nbytes + 2 * 4 * 2 * 64 - rolled, "the map, and means and deviations of its pixels"


def test_attend_is_scaled_dot_product_attention():
    q, k, v = (torch.randn(2, 3, n, 4) for n in (5, 7, 7))
    bias = torch.randn(3, 5, 7)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, bias)
    torch.testing.assert_close(attend(q, k, v, bias), expected)


SMALL = replace(STAGE, map_size=(5, 4), dim=6, num_heads=2, offset_groups=2, window_size=3, neighborhood_size=3)


def check_gradients(module, seed=0):
    """The gradient of all inputs and parameters against differences, in float64."""
    torch.manual_seed(seed)
    module = module.double()
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    parameters = [torch.randn_like(p) * 0.4 for _, p in module.named_parameters() if p.requires_grad]
    x = torch.randn(1, SMALL.dim, *SMALL.map_size, dtype=torch.float64)

    def run(x, *values):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), x)

    torch.autograd.gradcheck(run, [t.requires_grad_() for t in (x, *parameters)])


@pytest.mark.parametrize(
    ("axis", "variant"), [(axis, variant) for axis, variants in AXES.items() for variant in variants]
)
def test_gradients_of_every_axis(axis, variant):
    check_gradients(Deformable(**BASELINE | {axis: variant}).build(SMALL))


@pytest.mark.parametrize("kernel", bilinear.KERNELS)
def test_gradients_of_every_kernel(kernel):
    parts = {
        "sampling": partial(BilinearSampling, kernel=kernel),
        "position_bias": partial(RelativeBias, kernel=kernel),
    }
    check_gradients(Deformable(**BASELINE | parts).build(SMALL))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_gradients_of_every_kind(kind):
    check_gradients(kind.build(SMALL))


@pytest.mark.parametrize("part", BLOCK_PARTS)
def test_gradients_and_shape_of_every_part_of_a_block(part):
    module = BLOCK_PARTS[part]()
    assert module(image()).shape == image().shape
    with torch.no_grad():
        assert torch.equal(module(image()), image()) == part.startswith("no ")
    if list(module.parameters()):
        x = torch.randn(1, 24, 3, 4, dtype=torch.float64, requires_grad=True)
        torch.autograd.gradcheck(module.double(), [x])


def test_kernels_agree_in_values_and_gradients():
    """Also off the map, on its border and on the pixels."""
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    inside = torch.rand(2, 40, 6, 2, dtype=torch.float64) * 3 - 1.5
    on_pixels = torch.stack([torch.arange(7.0), torch.zeros(7)], -1).double() / torch.tensor([3.0, 2.0]) - 1
    for grid in (inside, on_pixels.expand(2, 1, 7, 2)):
        grid = grid.clone().requires_grad_()
        results = []
        for kernel in (bilinear.grid_sample, bilinear.gather):
            y = kernel(x, grid)
            results.append((y, *torch.autograd.grad(y.sin().sum(), (x, grid))))
        for ours, torchs in zip(*results, strict=True):
            torch.testing.assert_close(ours, torchs)


def test_determinism_chooses_the_kernel(monkeypatch):
    used = []
    for name in ("gather", "grid_sample"):
        monkeypatch.setattr(bilinear, name, lambda x, grid, name=name: used.append(name))
    bilinear.auto(None, None)
    torch.use_deterministic_algorithms(True)
    try:
        bilinear.auto(None, None)
    finally:
        torch.use_deterministic_algorithms(False)
    assert used == ["grid_sample", "gather"]
    with pytest.raises(ValueError, match="bilinear_kernel is 'nearest'; it must be one of auto, grid_sample, gather"):
        bilinear.kernel("nearest")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_deterministic_run_repeats_itself_on_cuda():
    torch.use_deterministic_algorithms(True)
    try:
        attention = build().cuda()
        x = image().repeat(16, 1, 1, 1).cuda()
        gradients = []
        for _ in range(5):
            attention.zero_grad()
            attention(x).square().sum().backward()
            gradients.append([p.grad.clone() for p in attention.parameters()])
        assert all(torch.equal(a, b) for again in gradients[1:] for a, b in zip(gradients[0], again, strict=True))
    finally:
        torch.use_deterministic_algorithms(False)


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
    module = stem(5, 8, patch_size)
    y = module(torch.randn(2, 5, 16, 23))  # the last patch lacks a column
    y.square().mean().backward()
    assert y.shape == (2, 8, 16 // patch_size, 24 // patch_size)
    assert all(p.grad is not None for p in module.parameters())


def test_the_overlapped_stem_refuses_other_patches():
    with pytest.raises(GeometryError, match=r"patch_size 3 .* 2 and 4"):
        OverlappedStem(3, 8, 3)


@pytest.mark.parametrize("downsampling", DOWNSAMPLINGS)
def test_downsamplings_halve_the_map_rounding_up(downsampling):
    module = downsampling(8, 12)
    y = module(torch.randn(2, 8, 6, 7))
    y.square().mean().backward()
    assert y.shape == (2, 12, 3, 4)
    assert all(p.grad is not None for p in module.parameters())


def test_a_continuous_bias_belongs_to_no_map():
    """The same displacement in units of the map gives the same bias on any map."""
    bias = ContinuousBias(6, 3, (4, 4), (4, 4))
    grid = AlignedGrid()
    results = []
    for side in (3, 5):  # of 5 pixels, every other one lies on those of 3
        queries = grid.queries((side, side), torch.device("cpu"))
        keys = queries[:: side // 2, :: side // 2][:2, :2].expand(1, 3, 2, 2, 2)
        results.append(bias(keys, queries[:: side // 2, :: side // 2][:2, :2]))
    torch.testing.assert_close(*results)


def test_clamped_points_stop_at_the_border():
    attention = build(offset_range=ClampedPositions, reference_grid=ShiftedGrid)
    points = attention.choose_points(attention.to_q(image()))
    assert points.abs().max() == 1 and (points.abs() < 1).any()


def test_shifted_grid_stands_half_a_step_to_the_lower_right():
    """Quirk `keys_half_a_cell_off`: the last keys start off the map."""
    keys = ShiftedGrid().keys((14, 14), (7, 7), torch.device("cpu"))[:, 0, 0]
    torch.testing.assert_close(keys, torch.linspace(-1, 1, 7) + 1 / 6)
    assert keys[-1] > 1
    queries = ShiftedGrid().queries((14, 14), torch.device("cpu"))[:, 0, 0]
    torch.testing.assert_close(queries, torch.linspace(-1, 1, 14))


def test_padding_is_not_attended_to():
    """Windows that the border cuts: each one, cut out of the map and attended to alone, gives the same."""
    attention, x = Window().build(STAGE), torch.randn(2, 24, 10, 7)
    whole = attention(x)
    for top in range(0, 10, 4):
        for left in range(0, 7, 4):
            window = (slice(None), slice(None), slice(top, top + 4), slice(left, left + 4))
            cut = x[window]
            q, k, v = (t.flatten(2).unflatten(1, (6, 4)).transpose(2, 3) for t in attention.to_qkv(cut).chunk(3, dim=1))
            pixels = torch.cartesian_prod(torch.arange(cut.shape[2]), torch.arange(cut.shape[3]))
            dy, dx = (pixels[:, None] - pixels[None] + 3).unbind(-1)
            out = attend(q, k, v, attention.bias_table[:, dy, dx])
            alone = attention.proj(out.transpose(2, 3).reshape(cut.shape))
            torch.testing.assert_close(whole[window], alone, rtol=1e-4, atol=1e-6)


def test_shifted_windows_on_a_padded_map():
    """Against attention over all pixels with a mask written by hand: same window, same side of the roll, no padding."""
    attention, (height, width) = ShiftedWindow().build(STAGE), (10, 7)
    x = torch.randn(2, 24, height, width)
    whole = attention(x)

    def part(n, padded):  # window after the roll, and on which side of the seam
        rolled = (torch.arange(n) - attention.shift) % padded
        return rolled // 4 * 4 + (torch.arange(n) < attention.shift).long()

    pixels = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    y, z = part(height, 12)[pixels[:, 0]], part(width, 8)[pixels[:, 1]]
    together = (y[:, None] == y) & (z[:, None] == z)
    dy, dx = (pixels[:, None] - pixels[None]).unbind(-1)
    table = attention.bias_table[:, (dy + 3).clamp(0, 6), (dx + 3).clamp(0, 6)]
    q, k, v = (t.flatten(2).unflatten(1, (6, 4)).transpose(2, 3) for t in attention.to_qkv(x).chunk(3, dim=1))
    out = attend(q, k, v, table.masked_fill(~together, float("-inf")))
    torch.testing.assert_close(whole, attention.proj(out.transpose(2, 3).reshape(x.shape)), rtol=1e-4, atol=1e-6)


def test_global_attention_is_plain_attention_with_a_table():
    attention = Global().build(STAGE)
    pixels = torch.cartesian_prod(*(torch.arange(n) for n in STAGE.map_size))
    dy, dx = (pixels[:, None] - pixels[None]).unbind(-1)
    bias = attention.bias_table[:, dy + 11, dx + 7]
    torch.testing.assert_close(attention.bias(12, 8), bias)
    assert attention(torch.randn(1, 24, 5, 9)).shape == (1, 24, 5, 9)  # a stretched table


def test_deformable_convolution_begins_as_a_convolution():
    module, x = DeformableConvolutions().build(STAGE), image()
    torch.testing.assert_close(module(x), module.proj(module.kernel(module.to_v(x))), rtol=1e-4, atol=1e-5)


def test_average_pooling_is_attention_with_equal_weights():
    module, x = Pooling().build(STAGE), image()
    v = module.to_v(x)
    torch.testing.assert_close(
        module(x)[:, :, 0, 0], module.proj(v[:, :, :3, :3].mean((2, 3), keepdim=True))[..., 0, 0]
    )
    torch.testing.assert_close(
        module(x)[:, :, 5, 4], module.proj(v[:, :, 3:8, 2:7].mean((2, 3), keepdim=True))[..., 0, 0]
    )


def test_fixed_bias_is_interpolated_on_another_map():
    bias = FixedBias(2, 1, (3, 3), (3, 3))
    same = bias(torch.zeros(1, 1, 3, 3, 2), torch.zeros(3, 3, 2))
    assert same is bias.bias_table
    finer = bias(torch.zeros(1, 1, 5, 5, 2), torch.zeros(5, 5, 2)).unflatten(2, (5, 5)).unflatten(1, (5, 5))
    corners = finer[:, ::2, ::2, ::2, ::2].flatten(3, 4).flatten(1, 2)
    torch.testing.assert_close(corners, bias.bias_table)
