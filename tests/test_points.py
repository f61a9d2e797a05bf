"""Where points lie is what the network sampled, in pixels that match the picture."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from smallest_run import SMALLEST

from src.callbacks.offset_diagnostics import MEASURED_IMAGES, OffsetDiagnostics
from src.config import build, build_model, load_config
from src.looking.points import IMAGES, SIDE, points_on
from src.models.attention.deformable import DeformableAttention
from src.reports.points import Points, read_points, write_points


def made(*overrides):
    cfg = load_config(*SMALLEST, *overrides)
    return build_model(cfg), build(cfg["data"])


def test_points_of_every_deformable_block():
    net, data = made()
    found = points_on(net, data)
    deformable = [
        f"{name}.{number}"
        for name, stage in net.stages.items()
        for number, block in enumerate(stage.blocks)
        if isinstance(block.attention, DeformableAttention)
    ]
    assert list(found.blocks) == deformable == ["three.1", "four.1"]
    assert found.images.shape == (IMAGES, data.image_size, data.image_size, 3)
    for block in found.blocks.values():
        assert block.points.shape[0] == IMAGES
        assert block.points.shape[2:] == block.reference.shape


def test_without_offsets_points_stay_on_the_grid():
    net, data = made("experiment=ablate_no_offset")
    for block in points_on(net, data).blocks.values():
        np.testing.assert_allclose(block.points, np.broadcast_to(block.reference, block.points.shape), atol=1e-4)


def test_a_pixel_of_the_map_is_the_middle_of_its_patch():
    net, data = made("experiment=ablate_no_offset", "reference_grid=aligned")
    block = points_on(net, data).blocks["four.1"]
    patch = data.image_size / np.sqrt(len(block.reference))
    middles = np.arange(patch / 2 - 0.5, data.image_size, patch)
    assert sorted(set(block.reference[:, 0].round(3))) == pytest.approx(list(middles), abs=1e-2)


def test_the_network_is_left_as_it_was():
    net, data = made()
    net.train()
    images = torch.stack([data.dataset("test")[0][0]])
    before = net.eval()(images)
    points_on(net.train(), data)
    assert net.training
    assert torch.equal(net.eval()(images), before)
    assert not any(part._forward_pre_hooks for part in net.modules())


def test_a_network_without_points_has_none():
    assert points_on(*made("experiment=ablate_deformable_nowhere")) is None


def test_large_images_are_shrunk_with_their_points(monkeypatch):
    net, data = made()
    whole = points_on(net, data)
    monkeypatch.setattr("src.looking.points.SIDE", data.image_size // 2)
    half = points_on(net, data)
    assert SIDE > half.images.shape[1] == data.image_size // 2
    for name, block in half.blocks.items():
        np.testing.assert_allclose(2 * (block.points + 0.5), whole.blocks[name].points + 0.5, atol=1e-4)


def test_the_file_says_the_same(tmp_path):
    points = points_on(*made())
    write_points(tmp_path / "points.npz", points)
    read = read_points(tmp_path)
    assert list(read.blocks) == list(points.blocks)
    np.testing.assert_array_equal(read.images, points.images)
    for name, block in points.blocks.items():
        np.testing.assert_allclose(read.blocks[name].points, block.points, atol=0.05)


def test_an_older_file_keeps_its_names(tmp_path):
    """Older runs counted deformable blocks alone; what is recorded isn't renamed, as their networks would be needed."""
    points = points_on(*made())
    write_points(tmp_path / "points.npz", Points(points.images, {"three.0": points.blocks["three.1"]}))
    assert list(read_points(tmp_path).blocks) == ["three.0"]


def test_a_damaged_file_is_as_if_absent(tmp_path):
    assert read_points(tmp_path) is None
    write_points(tmp_path / "points.npz", points_on(*made()))
    whole = (tmp_path / "points.npz").read_bytes()
    (tmp_path / "points.npz").write_bytes(whole[: len(whole) // 2])
    assert read_points(tmp_path) is None


@pytest.mark.parametrize("compiled", [False, True])
def test_diagnostics_measure_what_was_sampled(compiled):
    net, _ = made()
    net.eval()
    if compiled:
        net.compile(backend="eager")
    sampled, logged = [], {}
    attention = net.stages["three"].blocks[1].attention
    attention.sampling.register_forward_pre_hook(lambda module, given: sampled.append(given[1]))
    module = torch.nn.Module()
    module.net, module.log = net, lambda key, value, **options: logged.update({key: value})
    batch, trainer = (torch.randn(MEASURED_IMAGES + 4, 3, 64, 64), None), SimpleNamespace(sanity_checking=False)
    diagnostics = OffsetDiagnostics(every=0)
    with torch.no_grad():
        diagnostics.on_validation_batch_start(trainer, module, batch, 0)
        net(batch[0])
        diagnostics.on_validation_batch_end(trainer, module, None, batch, 0)
    diagnostics.on_validation_epoch_end(trainer, module)
    points = sampled[0][:MEASURED_IMAGES]
    grid = attention.reference_grid.keys((4, 4), (4, 4), points.device)
    distance = ((points - grid) / 2 * 3 * 16).norm(dim=-1)  # from centre to centre three steps, of 16 pixels each
    for group in (0, 1):
        torch.testing.assert_close(logged[f"offset/three/g{group}/mean_px"], distance[:, group].mean())
        outside = (points[:, group].abs() > 1).any(-1).float().mean()
        torch.testing.assert_close(logged[f"offset/three/g{group}/outside"], outside)
    assert (net._compiled_call_impl is not None) == compiled
