"""Pictures, their pixels and the numbers drawn on them; every kind of attention, and what is refused."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from smallest_run import SMALLEST
from torchvision import transforms

from src.config import build, build_model, load_config
from src.data.base import DataError
from src.models.looking import Look
from src.readme import ROOT
from src.training import train
from src.visualization import figures
from src.visualization.networks import of_run, of_weights
from src.visualization.page.document import BYTES, document
from src.visualization.receptive import measure, radii, write_rows
from src.visualization.rollout import Rollout, mixing, received
from src.visualization.subjects import Frame, Subject, frame_of, from_files, from_tests, picture_files, transform_of
from src.visualization.view import NoSuchBlock, view
from src.visualize import main
from src.weight_files import export_run

PHOTO = ("data=imagenet", "data.crop=0.875")


@pytest.fixture(scope="module")
def digits():
    return build(load_config(*SMALLEST)["data"])


@pytest.fixture(scope="module")
def net():
    return build_model(load_config(*SMALLEST)).eval()


@pytest.fixture(scope="module")
def seen(net, digits):
    (subject,) = from_tests(digits, [1])
    return view(net, subject, title="baseline")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of a second."""
    root = tmp_path_factory.mktemp("runs")
    train(load_config(*SMALLEST, "logger=csv", f"runs={root}", "study=seen"))
    return next(root.glob("seen/baseline/seed0-*"))


# ------------------------------------------------------------------------------------------ pixels


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (97, 211), (64, 64)], ids=str)
@pytest.mark.parametrize(
    "step",
    [
        [transforms.Resize(80), transforms.CenterCrop(64)],
        [transforms.Resize((64, 64))],
        [transforms.CenterCrop(64)],
    ],
    ids=["resize and crop", "squash", "crop"],
)
def test_a_mark_on_the_picture_is_where_the_network_sees_it(size, step):
    """A white spot is found again, through torchvision's own transforms and back through the frame."""
    transform = transforms.Compose([*step, transforms.ToTensor()])
    frame = frame_of(transform, size)
    spot = np.array([0.47 * size[0], 0.55 * size[1]]).round() + 0.5
    image = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    rows, columns = np.indices(image.shape[:2])
    image[np.hypot(columns + 0.5 - spot[0], rows + 0.5 - spot[1]) < 6] = 255
    given = transform(Image.fromarray(image))[0].numpy()
    rows, columns = np.indices(given.shape)
    middle = np.array([(given * (columns + 0.5)).sum(), (given * (rows + 0.5)).sum()]) / given.sum() / 64
    np.testing.assert_allclose(frame.to_picture(middle), spot, atol=0.02 * max(size) / 2)
    np.testing.assert_allclose(frame.from_picture(frame.to_picture(middle)), middle)


def test_steps_that_move_pixels_unaccountably_are_refused():
    with pytest.raises(ValueError, match="RandomRotation moves pixels"):
        frame_of(transforms.Compose([transforms.RandomRotation(9)]), (10, 10))


def test_the_transform_of_photographs_is_accounted_for():
    data = build(load_config("model=dat_tiny", *PHOTO)["data"])
    frame = frame_of(transform_of(data), (640, 427))
    side = 427 * 0.875
    np.testing.assert_allclose([frame.width, frame.height], [side, side], rtol=0.01)
    np.testing.assert_allclose([frame.left + frame.width / 2, frame.top + frame.height / 2], [320, 213.5], atol=1)


def test_positions_of_a_map_are_the_middles_of_its_patches_on_the_picture():
    subject = Subject("s", Image.new("RGB", (200, 100)), torch.zeros(3, 64, 64), Frame(50, 0, 100, 100))
    corners = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])  # (y, x)
    found = subject.on_picture(corners, (4, 4), 16)
    np.testing.assert_allclose(found, [[62.5, 12.5], [137.5, 87.5], [137.5, 12.5]])
    for xy, pixel in (((50, 0), 0), ((149.9, 99), 15), ((130, 10), 3), ((51, 99.9), 12)):
        assert subject.pixel_of(xy, (4, 4), 16) == pixel
    with pytest.raises(ValueError, match=r"query 20,10 is outside .* x from 50 to 150, y from 0 to 100"):
        subject.pixel_of((20, 10), (4, 4), 16)


def test_test_images_are_shown_as_they_are(digits):
    first, second = from_tests(digits, [0, 2])
    assert first.name == "digits-0" and torch.equal(second.image, digits.dataset("test")[2][0])
    assert np.asarray(first.picture).max() > 200 and first.picture.size == (64, 64)
    with pytest.raises(DataError, match="images=6: digits has test images 0 to 5"):
        list(from_tests(digits, [6]))


# ----------------------------------------------------------------------------------------- tracing


def look(weights, map_size, **more):
    """Of one image and head whose keys are the pixels."""
    from src.models.looking import pixel_positions

    points = pixel_positions(map_size)[None, None, None]
    return Look(kind="global", map_size=map_size, points=points, weights=torch.as_tensor(weights)[None, None], **more)


def test_rollout_is_the_product_of_half_attention_and_half_residual():
    """Abnar and Zuidema 2020, eq. 1, by hand on dense matrices, with a down-sampling between."""
    torch.manual_seed(0)
    fine = [torch.rand(16, 16).softmax(-1) for _ in range(2)]
    coarse = [torch.rand(4, 4).softmax(-1) for _ in range(2)]
    looks = {f"one.{n}": look(a, (4, 4)) for n, a in enumerate(fine)}
    looks |= {f"two.{n}": look(a, (2, 2)) for n, a in enumerate(coarse)}
    down = torch.zeros(4, 16)
    for pixel in range(16):
        down[pixel // 4 // 2 * 2 + pixel % 4 // 2, pixel] = 0.25
    half = [(a + torch.eye(len(a))) / 2 for a in (*fine, coarse[0])]
    expected = coarse[1] @ half[2] @ down @ half[1] @ half[0]
    found = Rollout(looks).trace("two.1", range(4))
    np.testing.assert_allclose(found.reshape(4, 16), expected, atol=1e-6)
    np.testing.assert_allclose(found.sum((1, 2)), 1, atol=1e-5)


def test_what_is_traced_is_made_of_all_and_sums_to_one(seen):
    for name, block in seen.blocks.items():
        queries = range(block.look.map_size[0] * block.look.map_size[1])
        found = seen.rollout.trace(name, queries[:3])
        assert found.shape == (3, 16, 16) and (found >= 0).all()
        # What attention reads off the map, it reads as zeros: rows are set right before, so that nothing is lost.
        np.testing.assert_allclose(found.sum((1, 2)), 1, atol=1e-4)


@pytest.mark.parametrize("head", [None, 3])
def test_mixing_is_the_look_on_the_map(seen, head):
    for name in ("three.0", "three.1"):
        one = seen.blocks[name].look
        dense = one.on_map(head)[0]
        expected = dense / dense.sum(-1, keepdim=True)
        np.testing.assert_allclose(mixing(one, head=head).toarray(), expected, atol=1e-6)


def test_attention_received_is_relative_to_an_even_share(seen):
    for block in seen.blocks.values():
        points, mass = received(block.look)
        assert points.shape[:2] == mass.shape
        torch.testing.assert_close(mass.mean(-1), torch.ones(len(mass)))
    one = seen.blocks["three.1"].look
    by_hand = one.weights[0].unflatten(0, (2, 2)).sum((1, 2))
    torch.testing.assert_close(received(one)[1], by_hand / by_hand.mean(-1, keepdim=True))


# ------------------------------------------------------------------------------------- every kind

EVERY = ["baseline", "no_offset_upstream", *(f"control_{kind}" for kind in (
    "global", "shifted_window", "window", "neighborhood", "spatial_reduction", "deformable_convolution",
    "average_pooling",
))]  # fmt: skip


@pytest.mark.parametrize("experiment", EVERY)
def test_every_kind_draws_its_own_keys(experiment, digits):
    """All that is drawn of a block can be made, and keys of the sampled query in the page are those of the look."""
    net = build_model(load_config(*SMALLEST, f"experiment={experiment}"))
    (subject,) = from_tests(digits, [0])
    found = view(net, subject, title=experiment)
    assert net.training  # as it was
    block = found.blocks["three.1"]
    figures.offsets(block), figures.keys(block), figures.query(found, "three.1", (20, 30))
    places, shares = block.keys_of(block.query_at((20, 30)))
    assert shares.sum() == pytest.approx(1, abs=1e-5) and len(places) == len(shares)
    page = document(found, ["three.1", "four.1"], first=(20, 30))
    json.dumps(page, allow_nan=False)
    assert [one["name"] for one in page["blocks"]] == ["three.1", "four.1"]


def test_a_page_of_large_maps_stays_within_its_bytes(digits):
    """Window and global attention on maps of 56x56 are far more than a page can hold."""
    net = build_model(load_config("model=dat_tiny", "experiment=ablate_deformable_in_1234", *PHOTO))
    subject = Subject("s", Image.new("RGB", (224, 224)), torch.randn(3, 224, 224), Frame(0, 0, 224, 224))
    found = view(net, subject, title="dat_tiny")
    page = document(found, found.chosen("all"), first=None)
    steps = {one["name"]: one["step"] for one in page["blocks"]}
    assert len(steps) == 12 and steps["one.0"] > 1 and steps["four.1"] == 1
    assert len(json.dumps(page)) < 1.5 * BYTES
    one = page["blocks"][0]
    assert one["rows"] * one["columns"] * 2 * 2 == len(_decoded(one["places"]))


def _decoded(text):
    import base64

    return base64.b64decode(text)


def test_bytes_keep_weights_to_a_510th_of_the_strongest(seen):
    page = document(seen, ["three.1"], first=None)["blocks"][0]
    shape = page["heads"], page["rows"] * page["columns"]
    tops = np.frombuffer(_decoded(page["tops"]), "<f4").reshape(*shape, 1)
    kept = np.frombuffer(_decoded(page["weights"]), np.uint8).reshape(*shape, -1) / 255 * tops
    exact = seen.blocks["three.1"].look.weights[0].numpy()
    assert np.abs(kept - exact).max() <= exact.max() / 510 * 1.001
    points = np.frombuffer(_decoded(page["points"]), "<i2").reshape(2, 1, -1, 2) / 10
    np.testing.assert_allclose(points, seen.blocks["three.1"].points(), atol=0.0501)


def test_blocks_are_chosen_by_kind_or_name(seen, digits):
    assert seen.chosen("deformable") == ["three.1", "four.1"]
    assert seen.chosen("shifted_window") == ["one.1", "two.1"]
    assert seen.chosen("two.0,four.1") == ["two.0", "four.1"]
    with pytest.raises(NoSuchBlock, match=r"no block 'five' .* one.0, one.1"):
        seen.chosen("five")
    net = build_model(load_config(*SMALLEST, "experiment=control_global"))
    other = view(net, next(from_tests(digits, [0])), title="control_global")
    with pytest.raises(NoSuchBlock, match=r"has no deformable block; blocks=all draws .*: window, shifted_window, glo"):
        other.chosen("deformable")


# ------------------------------------------------------------------------------- receptive fields


def test_radii_of_known_fields():
    disc = np.hypot(*(np.indices((101, 101)) + 0.5 - 50.5)) < 40
    r50, r95 = radii(disc / disc.sum(), (50.5, 50.5))
    assert r50 == pytest.approx(40 * 0.5**0.5, abs=0.7) and r95 == pytest.approx(40 * 0.95**0.5, abs=0.7)
    point = np.zeros((9, 9))
    point[4, 4] = 1
    assert radii(point, (4.5, 4.5)) == [0, 0]
    assert radii(point, (4.5, 1.5)) == [3, 3]


def test_fields_grow_with_the_stages_and_stay_within_what_windows_can_see(tmp_path):
    """Stage one with plain windows and patches: nothing beyond the window of the middle pixel has a gradient."""
    overrides = ("stem=patch", "model.stages.one.attention=[window]", "model.stages.one.window_size=4")
    net = build_model(load_config(*SMALLEST, *overrides))
    torch.manual_seed(0)
    found = measure(net, [torch.randn(3, 64, 64) for _ in range(2)], title="windows")
    assert [field.stage for field in found] == ["one", "two", "three", "four"]
    assert net.training and all(p.grad is None for p in net.parameters())
    one = found[0]
    outside = one.field.copy()
    outside[32:48, 32:48] = 0  # middle pixel (8, 8) of 16x16 is in the window of pixels 8 to 11, of 4 pixels each
    assert outside.max() == 0 and one.field.sum() == pytest.approx(1) and one.centre == (34, 34)
    medians = [np.median(field.radii, axis=0) for field in found]
    assert (np.diff([r50 for r50, _ in medians]) > 0).all()
    write_rows([found], tmp_path / "rows.csv")
    rows = list(csv.DictReader((tmp_path / "rows.csv").open()))
    assert [row["attention"] for row in rows][2:] == ["window deformable"] * 2
    assert float(rows[0]["r50_px"]) == pytest.approx(medians[0][0], abs=0.006)


# -------------------------------------------------------------------------------------- commands


def test_a_run_is_drawn_from_its_folder(run, tmp_path, caplog):
    out = tmp_path / "out"
    assert main([f"run={run}", "images=0,3", "query=20,30", "blocks=three.1", f"out={out}"]) == 0
    files = sorted(path.name for path in (out / "digits-3").iterdir())
    kinds = [f"three.1-{what}" for what in ("keys", "points", "query-20-30")]
    assert files == ["index.html", *sorted(f"{kind}{end}" for kind in kinds for end in ("-dark.svg", ".png", ".svg"))]
    page = (out / "digits-3" / "index.html").read_text()
    assert "baseline seed 0" in page and not re.search(r"(src|href)=\"(?!#|data:)", page)


def test_a_file_of_weights_is_its_own_network_and_looks_as_the_run_does(run, tmp_path):
    file = tmp_path / "w.safetensors"
    export_run(run, out=file)
    one, other = of_run(run), of_weights(str(file), [])
    assert one.title == other.title == "baseline seed 0"
    state = other.net.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in one.net.state_dict().items())


def test_networks_are_compared_and_their_fields_measured(tmp_path):
    words = [*SMALLEST, "weights=none", "experiment=control_global,baseline", "images=0", f"out={tmp_path}"]
    assert main(["compare", *words, "query=40,30"]) == 0
    assert (tmp_path / "digits-0" / "compared-40-30.png").exists()
    assert main(["fields", *words]) == 0
    rows = list(csv.DictReader((tmp_path / "receptive_fields.csv").open()))
    assert [row["network"] for row in rows][::4] == ["control_global, untrained", "baseline, untrained"]


def test_photographs_of_any_size_and_names_that_are_no_file_names(tmp_path, digits):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (90, 40), "red").save(folder / "<b>a&b.png")
    Image.new("L", (31, 77)).save(folder / "grey.jpg")
    Image.new("L", (31, 77)).save(folder / "grey.png")
    found = list(from_files(picture_files(folder), digits))
    assert [subject.picture.size for subject in found] == [(90, 40), (31, 77), (31, 77)]
    assert [subject.name for subject in found] == ["<b>a&b", "pictures-grey.jpg", "pictures-grey.png"]
    assert all(subject.image.shape == (3, 64, 64) for subject in found)
    assert main([*SMALLEST, "weights=none", f"image={folder}", "blocks=four.1", f"out={tmp_path / 'out'}"]) == 0
    page = (tmp_path / "out" / "_b_a_b" / "index.html").read_text()
    assert "<b>a&b" not in page and "&lt;b&gt;a&amp;b" in page


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["images=0"], r"either run=FOLDER or weights=FILE must be given, and neither is"),
        (["run=a", "weights=b"], r"and both are there"),
        (["run=nowhere"], r"run=nowhere has no record of a run"),
        (["weights=nowhere.safetensors"], r"nowhere.safetensors isn't there"),
        (["weights=none", "image=nowhere.jpg"], r"image=nowhere.jpg isn't there"),
        (["weights=none", "image=README.md"], r"README.md can't be read as a picture"),
        (["weights=none", "images=x"], r"images='x' are no numbers of test images"),
        (["weights=none", "images=0", "image=a"], r"give one of them"),
        (["weights=none", "query=12"], r"query='12' is no place"),
        (["weights=none", "images=0", "query=70,3"], r"query 70,3 is outside .* x from 0 to 64"),
        (["weights=none", "images=0", "experiment=control_global"], r"has no deformable block; blocks=all"),
        (["weights=none", "nonsense"], r"'nonsense' isn't of the form key=value"),
        (["weights=none", "modle=micro"], r"modle"),
        (["weights=none", "model=timm/resnet18", "images=0"], r"ResNet has no attention of src.models"),
        (["compare", "weights=none", "images=0"], r"compare needs several networks"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(words, line, capsys, tmp_path):
    more = [word for word in SMALLEST if not any(w.startswith("run=") for w in words)]
    assert main([*words, *more, f"out={tmp_path}"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and re.search(line, said[0])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("act", [[], ["compare"], ["fields"]])
def test_broken_pictures_of_a_folder_are_named_before_any_is_drawn(act, tmp_path, capsys):
    folder, noise = tmp_path / "pictures", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    folder.mkdir()
    for name in ("a.jpg", "b.png", "cut.jpg", "cut.png"):
        Image.fromarray(noise).save(folder / name)
    for name in ("cut.jpg", "cut.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-2000])
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").touch()
    words = [*act, *SMALLEST, "weights=none", "experiment=baseline", f"out={tmp_path / 'out'}"]
    assert main([*words, f"image={folder}"]) == 2
    said = capsys.readouterr().err
    assert said == (
        f"{folder}/cut.jpg, {folder}/cut.png, {folder}/empty.png and 1 more can't be read as pictures; "
        f"replace them, or leave them out\n"
    )
    assert not (tmp_path / "out").exists()


def test_weights_of_another_model_are_refused(run, tmp_path, capsys):
    file = tmp_path / "w.safetensors"
    export_run(run, out=file)
    assert main([f"weights={file}", "model=micro", "model.stages.one.dim=24", "images=0"]) == 2
    assert "doesn't fit micro" in capsys.readouterr().err


def test_the_example_quotes_its_rows():
    folder = ROOT / "experiments" / "looking"
    rows, page = list(csv.DictReader((folder / "receptive_fields.csv").open())), (folder / "README.md").read_text()
    assert len(rows) == 16
    for row in rows:
        radii_of = f"| {row['r50_px']} ({row['r50_iqr_px']}) | {row['r95_px']} ({row['r95_iqr_px']}) |"
        assert f"| {row['network']} | {row['stage']} | {row['attention'].replace('_', ' ')} {radii_of}" in page
    for name in re.findall(r'(?:src|srcset)="([^"]+)"', page):
        assert (folder / name).is_file()
