"""The command, on runs that were really trained; and what a run keeps of its way."""

import itertools
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, SingleDeviceStrategy
from PIL import Image
from safetensors.torch import load_file
from smallest_run import SMALLEST

from src.callbacks.every import due
from src.config import load_config
from src.looking.rows import read
from src.looking.runs import FILE, networks
from src.runs.identity import identity
from src.runs.record import find_records
from src.runs.wandb_logger import read_offline_run
from src.training import train
from src.where_it_looks import main

EPOCHS = 3
TINY = (*SMALLEST, f"recipe.epochs={EPOCHS}", "watch.weights=2", "watch.points=2")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    train(load_config(*TINY, f"runs={root}", "study=where", "logger.mode=offline"))
    train(load_config(*TINY, f"runs={root}", "study=where", "logger=csv", "experiment=ablate_no_offset"))
    return root


def baseline(runs):
    return next(record for record in find_records(runs) if record["name"] == "baseline")


def test_weights_and_pictures_are_kept_every_k_epochs_and_at_the_end(runs):
    for record in find_records(runs):
        folder = runs / record["folder"]
        kept = sorted(path.name for path in (folder / "checkpoints").glob("epoch-*"))
        assert kept == ["epoch-0002.safetensors", "epoch-0003.safetensors"]
        assert sorted(path.name for path in (folder / "points").iterdir()) == ["epoch-0002.png", "epoch-0003.png"]
        with Image.open(folder / "points" / "epoch-0003.png") as picture:
            assert picture.width > 200 and np.asarray(picture).std() > 10


def test_kept_weights_are_those_of_the_checkpoint(runs):
    folder = runs / baseline(runs)["folder"]
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in load_file(folder / "checkpoints" / "epoch-0003.safetensors").items():
        assert torch.equal(value, last[f"net.{name}"]), name


def test_pictures_are_in_wandb(runs):
    folder = runs / baseline(runs)["folder"]
    key = "points.filenames"
    pictures = [name for row in read_offline_run(folder)["history"] if key in row for name in row[key]]
    assert len(pictures) == 2
    for epoch, picture in zip((2, 3), pictures, strict=True):
        [path] = (folder / "wandb").glob(f"offline-run-*/files/{picture}")
        with Image.open(path) as logged, Image.open(folder / "points" / f"epoch-{epoch:04d}.png") as own:
            assert np.array_equal(np.asarray(logged), np.asarray(own))


def test_what_is_kept_is_no_part_of_the_result(runs):
    assert identity(load_config(*TINY)) == identity(load_config(*SMALLEST, f"recipe.epochs={EPOCHS}"))
    kept = baseline(runs)["metrics"]
    root = runs.parent / "unwatched"
    plain = train(load_config(*TINY, "watch={points: 0, weights: 0}", f"runs={root}", "logger=csv"))
    assert (plain["test/loss"], plain["val/acc1"]) == (kept["test/loss"], kept["val/acc1"])
    assert not [*root.rglob("epoch-*")]


def test_what_cannot_be_drawn_is_said_once_and_ends_nothing(tmp_path, monkeypatch, caplog):
    def broken(points):
        raise RuntimeError("no ink")

    monkeypatch.setattr("src.looking.pictures.picture", broken)
    words = ("watch.points=1", f"runs={tmp_path}", "logger=csv")
    with caplog.at_level(logging.WARNING):
        assert train(load_config(*TINY, *words))["epochs"] == EPOCHS
    assert [line for line in caplog.messages if "no ink" in line] == ["no picture of the points (RuntimeError: no ink)"]


def test_weights_that_cannot_be_kept_end_nothing(tmp_path, monkeypatch, caplog):
    def full(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr("src.callbacks.kept_weights.replacing", full)
    assert train(load_config(*TINY, f"runs={tmp_path}", "logger=csv"))["epochs"] == EPOCHS
    assert "no space left" in caplog.text


@pytest.mark.parametrize(
    ("epoch", "every", "strategy", "rank", "expected"),
    [
        (1, 2, SingleDeviceStrategy, 0, True),
        (0, 2, SingleDeviceStrategy, 0, False),
        (4, 2, DDPStrategy, 0, True),  # the last
        (1, 0, SingleDeviceStrategy, 0, False),
        (1, 2, DDPStrategy, 1, False),
        (1, 2, FSDPStrategy, 0, False),  # no rank has the whole network
    ],
)
def test_epochs_that_are_looked_at(epoch, every, strategy, rank, expected):
    trainer = SimpleNamespace(
        sanity_checking=False,
        state=SimpleNamespace(fn="fit"),
        is_global_zero=rank == 0,
        strategy=strategy.__new__(strategy),
        current_epoch=epoch,
        max_epochs=5,
    )
    assert due(trainer, every) == expected
    trainer.state.fn = "validate"
    assert not due(trainer, every)


# ------------------------------------------------------------------------------------------- the command


def test_a_study_is_measured_once_and_told_from_its_rows(runs, tmp_path):
    assert main(["measure", str(runs), "-o", str(tmp_path), "--images", "6"]) == 0
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"results.csv", "images.npz", "about.json", "README.md", "course.svg"} <= {path.name for path in files}
    text = (tmp_path / "results.csv").read_text()
    epochs = {int(line.split(",")[3]) for line in text.splitlines()[1:]}
    chosen = baseline(runs)["metrics"]["best_epoch"] + 1
    assert epochs >= {0, 2, 3, chosen}
    assert len(text.splitlines()) - 1 == sum(
        len(list(networks(record))) * (2 + 4) * 3 for record in find_records(runs)
    )  # epochs, groups of both blocks, regions

    measured = [runs / record["folder"] / FILE for record in find_records(runs)]
    before = [path.stat().st_mtime_ns for path in measured]
    assert main(["measure", str(runs), "-o", str(tmp_path), "--images", "6"]) == 0
    assert [path.stat().st_mtime_ns for path in measured] == before
    assert main(["report", str(tmp_path)]) == 0
    assert {path: path.read_bytes() for path in files} == files

    assert main(["measure", str(runs), "-o", str(tmp_path), "--images", "5"]) == 0, "other images are measured anew"
    assert all(path.stat().st_mtime_ns > earlier for path, earlier in zip(measured, before, strict=True))


def test_pictures_with_masks_of_ones_own_are_measured_too(runs, tmp_path):
    for part in ("images", "masks"):
        (tmp_path / "photos" / part).mkdir(parents=True)
    for number in range(4):
        picture = np.zeros((90, 120), np.uint8)
        picture[20:60, 10 + 20 * number : 50 + 20 * number] = 255
        for part in ("images", "masks"):
            Image.fromarray(picture).save(tmp_path / "photos" / part / f"{number}.png")
    words = ["measure", str(runs), "-o", str(tmp_path / "found"), "--masks", str(tmp_path / "photos")]
    assert main(words) == 0
    kept = read(tmp_path / "found")
    assert kept.about["images"]["data"] == "photos" and kept.about["images"]["count"] == 4
    assert {row["region"] for row in kept.rows} == {"object", "box"}
    assert "on the first 4 images of photos" in (tmp_path / "found" / "README.md").read_text()


def test_networks_are_those_of_their_epochs(runs):
    found = dict.fromkeys(epoch for epoch, _ in networks(baseline(runs)))
    for epoch, net in networks(baseline(runs)):
        found[epoch] = {name: value.clone() for name, value in net.state_dict().items()}
    assert list(found) == sorted(found)
    weights = [torch.cat([value.flatten() for value in of.values()]) for of in found.values()]
    assert all(not torch.equal(one, other) for one, other in itertools.pairwise(weights))
    folder = runs / baseline(runs)["folder"]
    kept = load_file(folder / "checkpoints" / "epoch-0003.safetensors")
    assert all(torch.equal(found[3][name], value) for name, value in kept.items())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["measure", "nowhere", "-o", "out"], "no finished run below nowhere"),
        (["measure", "{runs}", "-o", "out", "--images", "1"], "--images 1: give 2 or more"),
        (["measure", "{runs}", "-o", "out", "--masks", "photos"], "no folder photos/images"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_what_a_user_can_put_right_is_one_line(runs, words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([word.format(runs=runs) for word in words]) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
