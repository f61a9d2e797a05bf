"""`model=timm/NAME`: timm's network and nobody else's, under our config, checks and record."""

import os
import subprocess
import sys

import pytest
import timm
import torch
import yaml
from hydra.errors import MissingConfigException
from timm.layers import DropPath

from src import training
from src.complexity import count_macs, count_parameters, on_meta
from src.config import CONF, build_model, load_config
from src.models.geometry import GeometryError
from src.runs.identity import identity
from src.runs.record import find_records

SWIN, VIT = "swin_tiny_patch4_window7_224", "vit_small_patch16_224"

# As their papers have them at 224 pixels and 1000 classes: M parameters, G multiply-accumulates.
PUBLISHED = {"resnet18": (11.7, 1.8), SWIN: (28.3, 4.5), "pvt_v2_b2": (25.4, 4.0), VIT: (22.1, 4.6)}


def command(*arguments, module="src.train"):
    """(exit code, stdout, stderr) of a process of its own."""
    env = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-m", module] if module else [sys.executable, "-c"]
    done = subprocess.run([*start, *arguments], cwd=CONF.parent, env=env, capture_output=True, text=True, timeout=240)
    return done.returncode, done.stdout, done.stderr


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("name", "size"), [("resnet18", 224), ("swinv2_tiny_window8_256", 256), ("pvt_v2_b2", 224)])
def test_a_config_needs_no_file(name, size):
    cfg, baseline = load_config(f"model=timm/{name}"), load_config()
    assert cfg["name"] == cfg["model"]["name"] == name
    assert (cfg["model"]["image_size"], cfg["data"]["image_size"], cfg["model"]["num_classes"]) == (size, size, 10)
    assert cfg["recipe"] == baseline["recipe"] and cfg["trainer"] == baseline["trainer"]
    assert identity(cfg) != identity(baseline)


def test_data_and_experiments_go_with_it():
    cfg = load_config("model=timm/resnet18", "data=imagenet", "experiment=ablate_no_offset", "model.image_size=96")
    assert cfg["name"] == "ablate_no_offset"
    assert (cfg["model"]["num_classes"], cfg["data"]["image_size"]) == (1000, 96)
    assert load_config("model=timm/resnet18", "name=mine")["name"] == "mine"


def test_ablations_of_parts_that_it_lacks_are_refused():
    with pytest.raises(ValueError, match="ablate_no_offset changes offset, which resnet18 doesn't have; leave the exp"):
        training.check(load_config("model=timm/resnet18", "experiment=ablate_no_offset"))


def test_the_command_line_has_it_too():
    code, out, err = command("model=timm/pvt_v2_b2", "model.drop_path_rate=0.1", "--cfg", "job")
    assert code == 0, err
    cfg = yaml.safe_load(out)
    assert cfg["name"] == "pvt_v2_b2" and cfg["model"]["drop_path_rate"] == 0.1


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_what_its_paper_says(name):
    cfg = load_config(f"model=timm/{name}", "data=imagenet")
    net = on_meta(lambda: build_model(cfg))
    params, macs = PUBLISHED[name]
    assert count_parameters(net) / 1e6 == pytest.approx(params, abs=0.06)
    assert count_macs(net, 224) / 1e9 == pytest.approx(macs, abs=0.06)


@pytest.mark.parametrize(
    ("name", "size", "sized"),
    [("resnet10t", 64, False), ("pvt_v2_b0", 96, False), ("vit_tiny_patch16_224", 64, True), (SWIN, 64, True)],
)
def test_it_is_timms_own_network(name, size, sized):
    """The same numbers from the same seed, so weights and logits are equal; our trial leaves no trace in the seed."""
    cfg = load_config(f"model=timm/{name}", f"model.image_size={size}", "recipe.initialisation=published")
    torch.manual_seed(3)
    ours = build_model(cfg).eval()
    torch.manual_seed(3)
    theirs = timm.create_model(name, num_classes=10, drop_path_rate=0.0, **({"img_size": size} if sized else {})).eval()
    weights = theirs.state_dict()
    assert weights.keys() == ours.state_dict().keys()
    assert all(torch.equal(value, weights[key]) for key, value in ours.state_dict().items())
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=0)


@pytest.mark.parametrize(
    "name",
    # Of the last three, each refuses what it doesn't take in its own way.
    ["convnext_atto", "deit3_small_patch16_224", "efficientnet_b0", "levit_128", "vgg11", "caformer_s18", "dla34"],
)
def test_families_are_counted_without_computing(name):
    cfg = load_config(f"model=timm/{name}")
    assert count_macs(on_meta(lambda: build_model(cfg)), cfg["model"]["image_size"]) > 1e7


def test_drop_path_arrives():
    cfg = load_config("model=timm/pvt_v2_b0", "model.drop_path_rate=0.2")
    rates = [part.drop_prob for part in on_meta(lambda: build_model(cfg)).modules() if isinstance(part, DropPath)]
    assert max(rates) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("name", "overrides", "error", "says"),
    [
        (VIT, ["model.image_size=100"], GeometryError, "patches of 16 pixels don't cover it.*96 and 112 would do"),
        ("nest_tiny", ["model.image_size=100"], GeometryError, "First level blocks don't fit.*96 and 112 would do"),
        ("pvt_v2_b0", ["model.image_size=8"], GeometryError, "model.image_size 8 doesn't suit timm's pvt_v2_b0"),
        ("resnet10t", ["model.image_size=0"], GeometryError, "model.image_size is 0; it must be a whole number"),
        ("vgg11", ["model.drop_path_rate=0.1"], ValueError, "it takes no drop_path_rate.*must be 0"),
        ("resnet10t", ["model.drop_path_rate=1"], ValueError, "at least 0 and below 1"),
        ("resnet10t", ["experiment=ablate_stride_2"], ValueError, "it takes no stages, so model.stages must go"),
        ("resnet10t", ["+model.features_only=true"], ValueError, r"gives a list for an image, not logits \(1, 10\)"),
        ("resnet10t", ["model.architecture=resnet10x"], ValueError, "has no model 'resnet10x'; nearest are resnet10t"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(name, overrides, error, says, tmp_path):
    cfg = load_config(f"model=timm/{name}", f"runs={tmp_path}", *overrides)
    with pytest.raises(error, match=says) as caught:
        training.train(cfg)
    one_line(caught)
    assert not list(find_records(tmp_path))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("swni_tiny", "has no model 'swni_tiny'; nearest are swin_tiny_patch4_window7_224,"),
        ("resnet18.a1_in1k", "names pretrained weights, which are not loaded here; choose resnet18"),
    ],
)
def test_names_that_timm_does_not_have(name, says):
    with pytest.raises(MissingConfigException, match=says) as caught:
        load_config(f"model=timm/{name}")
    one_line(caught)


def test_a_sweep_trains_it_beside_ours_or_refuses_before_it_begins(tmp_path):
    tiny = ("recipe.epochs=1", "recipe.warmup_epochs=0", "recipe.batch_size=4", "data.scenes_per_epoch=8")
    tiny += ("data.val_scenes=6", "data.test_scenes=6", "trainer.accelerator=cpu", "logger=csv", "progress=lines")
    code, _, err = command(
        "-m", *tiny, f"runs={tmp_path}", "model=timm/resnet10t,timm/swni_tiny", "model.image_size=64"
    )
    assert code == 1 and "Traceback" not in err
    assert err.startswith("timm ") and "no model 'swni_tiny'; nearest are swin_tiny" in err.splitlines()[0]
    assert not list(find_records(tmp_path))

    code, _, err = command("-m", *tiny, f"runs={tmp_path}", "model=timm/resnet10t,micro", "model.image_size=64")
    assert code == 0, err
    records = {record["name"]: record for record in find_records(tmp_path)}
    assert set(records) == {"resnet10t", "baseline"}
    record = records["resnet10t"]
    assert record["status"] == "finished" and record["config"]["model"]["architecture"] == "resnet10t"
    assert record["params"] == sum(p.numel() for p in timm.create_model("resnet10t", num_classes=10).parameters())
    assert record["macs"] > 0 and record["versions"]["timm"] == timm.__version__
    assert {"val/acc1", "test/acc1", "test/loss", "images_per_second"} <= record["metrics"].keys()
