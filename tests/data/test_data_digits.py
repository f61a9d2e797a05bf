import pytest
import torch

from src.data.base import DataError
from src.data.digits import MEAN, STD, STROKE, source_digits
from src.data.scenes import cubic_kernel, plan_scenes, render_layers

SPLITS = ["train", "val", "test"]


def used_rows(data, split):
    """Rows of load_digits that occur in an epoch of scenes, whole or in fragments."""
    dataset = data.make_dataset(split)
    rows = source_digits(split)[2]
    return set(rows[dataset.plan(list(range(len(dataset)))).source].flatten().tolist())


def test_no_digit_is_shared_by_two_splits(make_data):
    rows = {split: set(source_digits(split)[2].tolist()) for split in SPLITS}
    assert {split: len(found) for split, found in rows.items()} == {"train": 1197, "val": 300, "test": 300}
    assert len(set.union(*rows.values())) == 1797

    data = make_data("digits", scenes_per_epoch=2000, val_scenes=500, test_scenes=500)
    for split in SPLITS:
        used = used_rows(data, split)
        assert len(used) > 200 and used <= rows[split]


def test_splits_have_all_classes_equally():
    for split in SPLITS:
        counts = source_digits(split)[1].bincount()
        assert len(counts) == 10 and counts.max() < 1.1 * counts.min() + 2


def test_a_scene_has_fragments_of_other_digits_only(make_data):
    source = make_data("digits", scenes_per_epoch=2000).dataset("train").plan(list(range(2000))).source
    assert (source[:, 1:] != source[:, :1]).all()
    assert len(source[:, 1].unique()) > 500


@pytest.mark.parametrize("image_size", [32, 64, 100])
def test_box_and_mask_are_the_whole_digits(make_data, image_size):
    data = make_data("digits", image_size=image_size)
    for number in range(10):
        image, label, mask, (x0, y0, x1, y1) = data.scene(number, "val")
        assert torch.equal(image, data.dataset("val")[number][0])
        assert label == data.dataset("val")[number][1]

        # The box is tight, and of the size that the scale allows.
        assert 0 <= x0 < x1 <= image_size and 0 <= y0 < y1 <= image_size
        assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
        assert all(edge.any() for edge in (mask[y0, :], mask[y1 - 1, :], mask[:, x0], mask[:, x1 - 1]))
        assert max(x1 - x0, y1 - y0) <= 6.0 * 9 * image_size / 64 + 1

        # Strokes are ink; the fragments add to them and take nothing away.
        assert (image[0][mask] * STD + MEAN).min() >= 0.5


def test_the_mask_is_the_digit_without_its_fragments(make_data):
    data = make_data("digits", fragments=4, image_size=64)
    layers = render_layers(data.dataset("val").plan([3]), source_digits("val")[0], 64)
    scene = data.scene(3, "val")
    assert torch.equal(scene.mask, layers[0, 0] > STROKE)
    assert (scene.image[0] * STD + MEAN > STROKE).sum() > scene.mask.sum()

    alone = make_data("digits", fragments=0).scene(3, "val")
    assert torch.equal(alone.image[0] * STD + MEAN > STROKE, alone.mask)


def test_the_same_scene_exists_at_every_size(make_data):
    small, large = make_data("digits", image_size=64), make_data("digits", image_size=192)
    for number in range(5):
        a, b = small.scene(number, "test"), large.scene(number, "test")
        assert a.label == b.label
        assert torch.allclose(torch.tensor(b.box) / 3, torch.tensor(a.box).float(), atol=1.5)


def test_a_plan_stays_on_the_canvas():
    plan = plan_scenes(
        500,
        sources=50,
        digit_scale=(2.0, 8.0),
        fragments=3,
        fragment_size=3,
        generator=torch.Generator().manual_seed(0),
    )
    top_left = plan.corner + plan.start * plan.pixel[..., None]
    bottom_right = top_left + (plan.extent * plan.pixel)[..., None]
    assert top_left.min() >= -1e-6 and bottom_right.max() <= 1 + 1e-6


def test_rendering_at_the_source_pixels_gives_the_source():
    ink = source_digits("train")[0]
    plan = plan_scenes(
        4,
        sources=50,
        digit_scale=(8.0, 8.0),
        fragments=0,
        fragment_size=3,
        generator=torch.Generator().manual_seed(0),
    )
    # At scale 8 a digit fills the canvas: on a canvas of 8 pixels nothing is resampled.
    assert torch.allclose(render_layers(plan, ink, 8)[:, 0], ink[plan.source[:, 0]], atol=1e-5)


def test_the_kernel_interpolates_and_sums_to_one():
    assert torch.equal(cubic_kernel(torch.tensor([0.0, 1.0, -1.0, 2.0, 5.0])), torch.tensor([1.0, 0, 0, 0, 0]))
    shifts = torch.rand(20, generator=torch.Generator().manual_seed(0))
    total = cubic_kernel(shifts[:, None] + torch.arange(-3.0, 3.0)).sum(1)
    assert torch.allclose(total, torch.ones(20))


def test_images_are_normalised(make_data):
    data = make_data("digits", image_size=64, scenes_per_epoch=1024, batch_size=1024)
    images, _ = next(iter(data.train_dataloader()))
    assert abs(images.mean()) < 0.05 and abs(images.std() - 1) < 0.05
    assert torch.equal(images[:, 0], images[:, 2])


@pytest.mark.parametrize("scale", [[5.0, 3.0], [0.0, 3.0], [3.0, 9.0]])
def test_impossible_scales_are_named(make_data, scale):
    with pytest.raises(DataError, match="digit_scale"):
        make_data("digits", digit_scale=scale).check()


def test_fingerprint_follows_the_protocol(make_data):
    fingerprint = make_data("digits").fingerprint()
    assert fingerprint == make_data("digits", digit_scale=[4, 6]).fingerprint()  # integers are the same numbers
    for change in ({"digit_scale": [3.0, 4.0]}, {"scenes_per_epoch": 31}, {"val_scenes": 9}, {"test_scenes": 9}):
        assert fingerprint != make_data("digits", **change).fingerprint()
