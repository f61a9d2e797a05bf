"""Shares and lengths are those that counting gives, and so is what they are compared with."""

import pytest
import torch
from smallest_run import SMALLEST

from src.config import build, build_model, load_config
from src.looking.masks import masked_images
from src.looking.measures import Keys, keys_of, measure
from src.looking.points import points_on
from src.looking.quantities import MEASURES, statistics_of

SIDE = 12


def random_keys(images=5, groups=2, places=4):
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(places, 2, generator=generator) * (SIDE - 1)
    points = reference + 4 * torch.randn(images, groups, places, 2, generator=generator)  # some leave the image
    mass = torch.rand(images, groups, places, generator=generator)
    region = torch.rand(images, SIDE, SIDE, generator=generator) > 0.6
    return Keys(reference, points, mass / mass.sum(-1, keepdim=True)), region


def on(region, point):
    """Counting, one point at a time."""
    x, y = (round(value) for value in point.tolist())
    return float(0 <= x < SIDE and 0 <= y < SIDE and bool(region[y, x]))


def test_shares_are_counted():
    keys, region = random_keys()
    found = measure(keys, region)
    images, groups, places, _ = keys.points.shape
    for i in range(images):
        starts = [on(region[i], point) for point in keys.reference]
        assert found["reference"][i, 0] == pytest.approx(sum(starts) / places)
        for g in range(groups):
            hits = [on(region[i], point) for point in keys.points[i, g]]
            weights = keys.mass[i, g].tolist()
            assert found["points"][i, g] == pytest.approx(sum(hits) / places)
            assert found["mass"][i, g] == pytest.approx(sum(w * h for w, h in zip(weights, hits, strict=True)))
            expected = sum(w * s for w, s in zip(weights, starts, strict=True))
            assert found["mass_reference"][i, g] == pytest.approx(expected)


def test_lengths_are_those_of_points_that_start_there():
    keys, region = random_keys()
    found = measure(keys, region)
    lengths = (keys.points - keys.reference).norm(dim=-1)
    for i in range(len(region)):
        starts = torch.tensor([on(region[i], point) for point in keys.reference]) > 0
        torch.testing.assert_close(found["length_on"][i].float(), lengths[i][:, starts].mean(-1), equal_nan=True)
        torch.testing.assert_close(found["length_off"][i].float(), lengths[i][:, ~starts].mean(-1), equal_nan=True)


def test_other_images_are_all_the_others():
    keys, region = random_keys()
    found = measure(keys, region)
    images, groups, places, _ = keys.points.shape
    for i in range(images):
        for g in range(groups):
            points = mass = 0.0
            for j in set(range(images)) - {i}:
                hits = [on(region[i], point) for point in keys.points[j, g]]
                points += sum(hits) / places
                mass += sum(w * h for w, h in zip(keys.mass[j, g].tolist(), hits, strict=True))
            assert found["points_other_image"][i, g] == pytest.approx(points / (images - 1))
            assert found["mass_other_image"][i, g] == pytest.approx(mass / (images - 1))


def test_random_offsets_are_all_of_the_group():
    keys, region = random_keys()
    found = measure(keys, region)
    images, groups, places, _ = keys.points.shape
    for g in range(groups):
        offsets = (keys.points[:, g] - keys.reference).reshape(-1, 2)
        for i in range(images):
            share = [sum(on(region[i], keys.reference[p] + o) for o in offsets) / len(offsets) for p in range(places)]
            assert found["points_shuffled"][i, g] == pytest.approx(sum(share) / places, abs=1e-6)
            expected = sum(w * s for w, s in zip(keys.mass[i, g].tolist(), share, strict=True))
            assert found["mass_shuffled"][i, g] == pytest.approx(expected, abs=1e-6)


def test_points_that_seek_the_object_are_told_from_points_that_keep_to_a_place():
    corner = torch.zeros(8, SIDE, SIDE, dtype=torch.bool)
    corner[:4, :4, :4] = corner[4:, -4:, -4:] = True  # objects in one corner or the other
    reference = torch.tensor([[5.0, 5.0], [6.0, 6.0]])
    equal = torch.full((8, 1, 2), 0.5)
    seeking = torch.where(torch.arange(8)[:, None] < 4, 1.0, 10.0)[:, :, None, None].expand(8, 1, 2, 2)
    keeping = torch.full((8, 1, 2, 2), 1.0)
    index = list(MEASURES).index
    for points, above_reference, above_others in ((seeking, 1.0, 4 / 7), (keeping, 0.5, 0.0)):
        found = measure(Keys(reference, points, equal), corner)
        assert (found["points"] - found["reference"]).mean() == pytest.approx(above_reference)
        assert (found["points"] - found["points_other_image"]).mean() == pytest.approx(above_others)
        stacked = torch.stack([found[name] for name in MEASURES], -1).numpy()
        assert stacked[..., index("points")].mean() == pytest.approx(found["points"].mean())
        assert statistics_of(stacked).shape == (8, 9)


def test_one_image_has_no_other():
    keys, region = random_keys(images=1)
    with pytest.raises(ValueError, match="two or more"):
        measure(keys, region)


def made(*overrides):
    cfg = load_config(*SMALLEST, *overrides)
    return build_model(cfg), build(cfg["data"])


def test_keys_are_where_the_network_reads():
    net, data = made()
    net.train()
    images = masked_images(data, split="test", count=3)
    keys, points = keys_of(net, images), points_on(net, data, 3)
    assert net.training and list(keys) == ["three.1", "four.1"]
    for of_keys, block in zip(keys.values(), points.blocks.values(), strict=True):
        torch.testing.assert_close(of_keys.points, torch.from_numpy(block.points), atol=1e-3, rtol=0)
        torch.testing.assert_close(of_keys.reference, torch.from_numpy(block.reference), atol=1e-3, rtol=0)
        torch.testing.assert_close(of_keys.mass.sum(-1), torch.ones(of_keys.mass.shape[:2]))


def test_without_offsets_there_is_nothing_random_in_them():
    net, data = made("experiment=ablate_no_offset")
    images = masked_images(data, split="test", count=6)
    for keys in keys_of(net, images).values():
        found = measure(keys, images.regions["object"])
        for name in ("points", "points_shuffled", "points_other_image"):
            torch.testing.assert_close(found[name], found["reference"].double())
        torch.testing.assert_close(found["mass_shuffled"], found["mass"])
