"""Trees of image files: `folder` and `imagenet`."""

import pytest
from data_fakes import write_tree

from src.data.base import DataError


def message(data):
    """The one line that `check` says."""
    with pytest.raises(DataError) as error:
        data.check()
    assert "\n" not in str(error.value)
    return str(error.value)


def names(data, split):
    """Files of a split, with the directory they are below."""
    files, indices = data.splits[split]
    return {files.root / name for name in files.names[indices]}


def sizes(data):
    return {split: len(names(data, split)) for split in ("train", "val", "test")}


def test_a_tree_without_splits_is_carved(make_data):
    data = make_data("folder")
    assert data.class_names == ("apple", "bear", "cat")
    assert sizes(data) == {"train": 42, "val": 9, "test": 9}
    assert len(names(data, "train") | names(data, "val") | names(data, "test")) == 60
    files, indices = data.splits["test"]
    assert sorted(files.labels[indices].tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_labels_are_the_folders(make_data):
    data = make_data("folder")
    files, _ = data.splits["train"]
    folders = [name.split("/")[0] for name in files.names.tolist()]
    assert folders == [data.class_names[label] for label in files.labels]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("train",), {"train": 28, "val": 6, "test": 6}),
        (("train", "val"), {"train": 34, "val": 6, "test": 8}),  # val/ is the test split
        (("train", "test"), {"train": 34, "val": 6, "test": 8}),
        (("train", "val", "test"), {"train": 40, "val": 8, "test": 8}),
    ],
)
def test_given_splits_are_used_as_given(make_data, tmp_path, given, expected):
    root = tmp_path / "given"
    for part in given:
        write_tree(root / part, per_class=20 if part == "train" else 4, classes=("a", "b"))
    data = make_data("folder", root=str(root), num_classes=2)
    data.check()
    assert sizes(data) == expected
    assert not names(data, "train") & names(data, "val")
    directory = {"val": "val", "test": "test" if "test" in given else "val"}
    for split, part in directory.items():
        if (split == "test" and len(given) > 1) or (split == "val" and len(given) == 3):
            assert all((root / part) in path.parents for path in names(data, split))


def test_hidden_and_other_files_are_no_images(make_data):
    data = make_data("folder")
    (data.root / ".cache").mkdir()
    (data.root / "apple" / "._1.png").write_bytes(b"resource fork")
    (data.root / "apple" / "notes.txt").write_text("not an image")
    data.check()
    assert sum(sizes(data).values()) == 60


def test_missing_trees_are_named(make_data, tmp_path):
    said = message(make_data("folder", root=str(tmp_path / "nowhere")))
    assert f"no directory {tmp_path / 'nowhere'}" in said and "root/CLASS" in said
    (tmp_path / "flat").mkdir()
    assert "no class folders" in message(make_data("folder", root=str(tmp_path / "flat")))


def test_the_right_number_of_classes_is_said(make_data):
    said = message(make_data("folder", num_classes=5))
    assert "3 classes" in said and "apple, bear, cat" in said and "data.num_classes=3" in said


def test_empty_files_and_classes_are_named(make_data):
    data = make_data("folder")
    (data.root / "bear" / "3.png").write_bytes(b"")
    assert "bear/3.png is empty" in message(data)
    (data.root / "bear" / "3.png").unlink()
    (data.root / "dog").mkdir()
    assert "class 'dog'" in message(make_data("folder", num_classes=4))


def test_too_few_images_to_split_is_said(make_data, tmp_path):
    write_tree(tmp_path / "few", per_class=1)
    assert "no images for the val split" in message(make_data("folder", root=str(tmp_path / "few")))


def test_a_class_that_training_lacks_is_named(make_data, tmp_path):
    root = tmp_path / "odd"
    write_tree(root / "train", per_class=20)
    write_tree(root / "val", per_class=4, classes=("apple", "zebra"))
    assert "'zebra'" in message(make_data("folder", root=str(root)))


@pytest.mark.parametrize("name", ["folder", "imagenet"])
def test_a_truncated_image_is_named_when_read(make_data, name):
    data = make_data(name)
    path = min(names(data, "val"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=path.name):
        list(data.val_dataloader())


@pytest.mark.parametrize("name", ["folder", "imagenet"])
def test_fingerprint_follows_the_files_not_the_place(make_data, tmp_path, name):
    data = make_data(name)
    fingerprint = data.fingerprint()
    data.root.rename(tmp_path / "elsewhere")
    assert make_data(name, root=str(tmp_path / "elsewhere")).fingerprint() == fingerprint
    path = min(tmp_path.rglob("*.png"))
    path.write_bytes(path.read_bytes() + b"\0")
    assert make_data(name, root=str(tmp_path / "elsewhere")).fingerprint() != fingerprint


def test_imagenet_tests_on_val_and_chooses_on_train(make_data):
    data = make_data("imagenet")
    assert sizes(data) == {"train": 30, "val": 6, "test": 12}
    assert all(data.root / "val" in path.parents for path in names(data, "test"))
    assert all(data.root / "train" in path.parents for path in names(data, "train") | names(data, "val"))
    assert not names(data, "train") & names(data, "val")


def test_incomplete_imagenet_is_named(make_data, tmp_path):
    said = message(make_data("imagenet", root=str(tmp_path / "nowhere")))
    assert str(tmp_path / "nowhere" / "train") in said and "image-net.org" in said

    data = make_data("imagenet")
    for path in (data.root / "val" / "cat").iterdir():
        path.unlink()
    assert f"no images in {data.root / 'val' / 'cat'}" in message(data)
    (data.root / "val" / "cat").rmdir()
    assert "has 2 class folders, not 3" in message(data)
    (data.root / "val" / "dog").mkdir()
    assert "not those of train/" in message(data)


@pytest.mark.parametrize("name", ["folder", "imagenet"])
def test_erasing_is_the_configs(make_data, name):
    def steps(**changes):
        return [type(step).__name__ for step in make_data(name, **changes).train_transform().transforms]

    assert "RandomErasing" in steps(erasing=0.25) and "RandomErasing" not in steps(erasing=0.0)
    assert "RandAugment" in steps() and "ColorJitter" not in steps()
