"""A look says what the attention does, and recording it changes nothing."""

from dataclasses import replace

import pytest
import torch
from einops import rearrange
from test_models_attention import BASELINE, KINDS, SMALL, STAGE, build, image
from torch import nn

from src.config import build as build_config
from src.config import build_model, load_config
from src.models.attention.deformable import Deformable, DeformableAttention
from src.models.checkpointing import checkpoint_activations
from src.models.looking import CannotLook, attentions, eager, landing, pixel_positions, recording, to_pixels
from src.models.reference_grid import AlignedGrid
from src.models.sampling import AveragePooling

DEFORMABLE = Deformable(**BASELINE)
EVERY_KIND = [*KINDS, DEFORMABLE, Deformable(**BASELINE | {"sampling": AveragePooling})]
MAPS = [(12, 8), (10, 7)]  # whole windows and patches, and cut ones


def made(kind, seed=0):
    """The attention of a kind with weights that show: tables, points and loudness are not near zero."""
    torch.manual_seed(seed)
    attention = kind.build(STAGE)
    for name, parameter in attention.named_parameters():
        if name.endswith("bias_table") or "to_points" in name:
            nn.init.normal_(parameter, std=0.3)
    return attention.double()


def values(attention, x, look):
    """What each key says (B, heads, Q or 1, K, d), read from the input where the look says that keys are."""
    if hasattr(attention, "to_kv"):
        read = x if not hasattr(attention, "reduce") else None
        if read is None:  # a patch is more than the mean of its pixels
            v = attention.queries_keys_values(x)[2]
            return v[:, :, None]
        sampled = at_keys(read, look)  # (B, C, 1, K)
        v = attention.to_kv(sampled).chunk(2, dim=1)[1]
    else:
        v = attention.to_v(x) if hasattr(attention, "to_v") else attention.to_qkv(x).chunk(3, dim=1)[2]
        v = at_keys(v, look)
    return rearrange(v, "b (heads d) q k -> b heads q k d", heads=look.weights.shape[1])


def at_keys(maps, look):
    """Maps (B, C, H, W) read at the keys of each group of channels: (B, C, Q or 1, K)."""
    pixels, shares = landing(look.points, look.map_size, look.side)
    grouped = rearrange(maps, "b (g c) h w -> b g c (h w)", g=look.points.shape[1])
    read = torch.stack(
        [torch.stack([m[:, i] for m, i in zip(a, b, strict=True)]) for a, b in zip(grouped, pixels, strict=True)]
    )
    return (read * shares[:, :, None]).sum(-1).flatten(1, 2)


@pytest.mark.parametrize("map_size", MAPS, ids=str)
@pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: type(kind).__name__)
def test_the_output_is_what_the_look_says(kind, map_size):
    attention, x = made(kind), torch.randn(2, STAGE.dim, *map_size, dtype=torch.float64)
    look = attention.look(x)
    said = values(attention, x, look)
    if hasattr(attention, "kernel"):  # weights of deformable convolution scale what its kernel then mixes
        heard = rearrange(said * look.weights[..., None], "b 1 q k c -> (b q) c k 1")
        out = nn.functional.conv2d(
            heard,
            rearrange(attention.kernel.weight, "o c ky kx -> o c (ky kx) 1"),
            attention.kernel.bias,
            groups=attention.kernel.groups,
        )
        out = rearrange(out, "(b h w) c 1 1 -> b c h w", b=2, h=map_size[0])
    else:
        out = rearrange((said * look.weights[..., None]).sum(3), "b heads (h w) d -> b (heads d) h w", h=map_size[0])
        torch.testing.assert_close(look.weights.sum(-1), torch.ones_like(look.weights[..., 0]))
    torch.testing.assert_close(attention.proj(out), attention(x))


@pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: type(kind).__name__)
def test_what_lands_on_the_map(kind):
    """One row for each query, which sums to 1 unless points are off the map; and the mean of heads is over all."""
    look = made(kind).look(torch.randn(2, STAGE.dim, 10, 7, dtype=torch.float64))
    whole = look.on_map()
    heads = look.weights.shape[1]
    torch.testing.assert_close(whole, torch.stack([look.on_map(head) for head in range(heads)]).mean(0))
    inside = (look.points.abs() <= 1 + 1e-9).all(-1)
    per_head = inside.repeat_interleave(heads // inside.shape[1], 1).expand_as(look.weights)
    kept = (look.weights * per_head).sum((1, 3)) / heads
    assert whole.shape == (2, 70, 70)
    assert (whole.sum(-1) >= kept - 1e-6).all()
    assert (whole.sum(-1) <= look.weights.sum((1, 3)) / heads + 1e-6).all()


@pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: type(kind).__name__)
def test_positions_alone_are_the_same(kind):
    attention, x = made(kind), torch.randn(2, STAGE.dim, 12, 8, dtype=torch.float64)
    whole, alone = attention.look(x), attention.look(x, weights=False)
    assert alone.weights is None and torch.equal(whole.points, alone.points)
    with pytest.raises(ValueError, match="weights=True"):
        alone.on_map()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "autocast"])
def test_recording_changes_no_bit(kind, training, dtype):
    results = []
    for recorded in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Dropout(0.2), kind.build(STAGE), kind.build(STAGE)).train(training)
        x = image().requires_grad_()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            if recorded:
                with recording(net) as looks:
                    y = net(x)
            else:
                y = net(x)
            y.float().square().sum().backward()
        results.append([y.detach(), x.grad, *(p.grad for p in net.parameters())])
    assert list(looks) == ["1", "2"] and all(len(of) == 1 for of in looks.values())
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not any(module._forward_hooks for module in net.modules())
    look = looks["1"][0]
    assert look.points.dtype == look.weights.dtype == torch.float32 and not look.weights.requires_grad


def micro(*overrides):
    return build_model(load_config(*overrides))


def test_recording_a_network_forward_by_forward():
    net = micro("experiment=roadmap_10_datpp", "model=micro").eval()
    one, two = torch.randn(3, 3, 64, 64), torch.randn(2, 3, 96, 64)
    with recording(net, images=2) as looks:
        net(one), net(two)
    assert list(looks) == list(attentions(net))
    assert {len(of) for of in looks.values()} == {2}
    assert [look.map_size for look in looks["one.0"]] == [(16, 16), (24, 16)]
    assert all(look.points.shape[0] == 2 for of in looks.values() for look in of)


def test_looks_have_the_names_of_their_kinds():
    kinds = build_config(load_config()["model"]["attention"])
    assert {name: kind.build(STAGE).look(image()).kind for name, kind in kinds.items()} == {
        name: name for name in kinds
    }


def test_recording_one_kind_and_positions_alone():
    net = micro().eval()
    with recording(net, kind=DeformableAttention, weights=False) as looks:
        net(torch.randn(1, 3, 64, 64))
    assert list(looks) == ["three.1", "four.1"]
    assert looks["three.1"][0].points.shape == (1, 2, 1, 16, 2) and looks["three.1"][0].weights is None


def test_activations_computed_again_are_recorded_once():
    net = micro()
    checkpoint_activations(net)
    with recording(net) as looks:
        net(torch.randn(1, 3, 64, 64)).sum().backward()
    assert {len(of) for of in looks.values()} == {1}


def test_compiled_networks_are_refused_and_may_run_as_written():
    net = micro().eval()
    net.compile(backend="eager")
    with pytest.raises(CannotLook, match=r"DAT is compiled.*compile=false"), recording(net):
        pass
    with pytest.raises(CannotLook, match="compiled"), recording(torch.compile(micro(), backend="eager")):
        pass
    call = net._compiled_call_impl
    with eager(net), recording(net) as looks:
        net(torch.randn(1, 3, 64, 64))
    assert net._compiled_call_impl is call and len(looks["three.1"]) == 1


def test_other_networks_are_refused_in_one_line():
    with pytest.raises(CannotLook, match="Linear has no attention"), recording(nn.Linear(2, 2)):
        pass


def test_hooks_go_when_a_forward_fails():
    net = micro()
    with pytest.raises(RuntimeError), recording(net):
        net(torch.randn(1, 5, 64, 64))
    assert not any(module._forward_hooks for module in net.modules())


def test_points_start_from_the_grid_and_move_by_their_offsets():
    attention = build(seed=1)
    look = attention.look(image())
    points = attention.choose_points(attention.to_q(image()))
    torch.testing.assert_close(look.points[:, :, 0], points.flatten(2, 3))
    grid = attention.reference_grid.keys(STAGE.map_size, STAGE.key_map_size, points.device)
    assert torch.equal(look.reference, grid.flatten(0, 1)[None])
    offsets = (points - grid) / 2 * (torch.tensor(STAGE.map_size) - 1)
    torch.testing.assert_close(look.moved()[:, :, 0], offsets.flatten(2, 3))
    assert look.moved().any()


def test_keys_that_can_not_move_have_not():
    still = [kind.build(STAGE).look(image()).moved() for kind in KINDS]
    pooled = Deformable(**BASELINE | {"sampling": AveragePooling}).build(STAGE).look(image()).moved()
    assert not any(moved.any() for moved in [*still, pooled])  # deformable convolution begins with its plain kernel


@pytest.mark.parametrize("map_size", [(4, 5), (1, 5)], ids=str)
def test_pixels_are_where_the_map_has_them(map_size):
    positions = pixel_positions(map_size)
    pixels = torch.cartesian_prod(*(torch.arange(n) for n in map_size)).float()
    torch.testing.assert_close(to_pixels(positions, map_size), pixels)
    index, share = landing(positions, map_size, 1)
    landed = torch.zeros(len(positions), len(positions)).scatter_add_(1, index, share)
    torch.testing.assert_close(landed, torch.eye(len(positions)))
    if map_size == (4, 5):
        grid = AlignedGrid().keys(map_size, map_size, torch.device("cpu")).flatten(0, 1)
        torch.testing.assert_close(positions, grid)


def test_a_point_half_off_the_map_keeps_half():
    index, share = landing(torch.tensor([[-1 - 1 / 3, -1.0]]), (4, 5), 1)
    assert share.sum().item() == pytest.approx(0.5) and index[0][share[0] > 0].tolist() == [0]


def test_a_patch_that_the_border_cuts_is_the_pixels_that_there_are():
    stage = replace(SMALL, reduction=3)
    look = next(kind for kind in KINDS if "Spatial" in type(kind).__name__).build(stage).look(torch.randn(1, 6, 5, 4))
    index, share = landing(look.points[0, 0, 0], (5, 4), look.side)
    last = index[-1][share[-1] > 0]
    assert sorted(last.tolist()) == [3 * 4 + 3, 4 * 4 + 3]
    torch.testing.assert_close(share.sum(-1), torch.ones(4))
