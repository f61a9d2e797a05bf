"""Variants of a seed differ in nothing but what they vary: first weights, images, mixtures, dropped branches."""

from copy import deepcopy
from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image
from timm.layers import DropPath
from torch import nn

from src import config, training
from src.config import CONF, build, build_model, load_config
from src.models.attention.neighborhood import NeighborhoodAttention
from src.models.init import INITIALISATIONS, draw, reset
from src.training import PARTS_OF_DAT

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
VARIANTS = [name for name in EXPERIMENTS if name != "baseline"]

# Of DAT's parts, those that change only what is inside of deformable attention.
PARTS_OF_DEFORMABLE = ("offset", "offset_range", "reference_grid", "sampling", "position_bias", "local_encoding")
CONSTANT = ("norm", "factor", "to_points", "stem.1.", "stem.4.", "downsample.1.", "reduce.1.", "offset.net.1.")


# --- first weights


@cache
def experiment(name):
    return load_config(f"experiment={name}")


@cache
def start(name, initialisation):
    """Parameters and buffers that a variant starts with."""
    cfg = deepcopy(experiment(name))
    cfg["recipe"]["initialisation"] = initialisation
    torch.manual_seed(len(name))  # of no consequence
    return tensors(build_model(cfg))


def tensors(net):
    return {name: tensor.detach() for name, tensor in (*net.named_parameters(), *net.named_buffers())}


def varies(tensor):
    """Whether it is drawn: other first values are the same number throughout."""
    return tensor.is_floating_point() and tensor.min() < tensor.max()


def untouched(name):
    """Beginnings of names of what `against` has and the variant `name` has as well, by its axes and stages."""
    cfg, axes = experiment(name), experiment(name)["axes"]
    other = experiment(cfg["against"])["model"]["stages"]
    kept = ["norm.", "head."] + ["stem."] * ("stem" not in axes)
    for stage, values in cfg["model"]["stages"].items():
        kept += [f"stages.{stage}.downsample."] * ("downsampling" not in axes)
        kept += [f"stages.{stage}.blocks.{i}.feed_forward." for i in range(values["depth"])]
        if values == other[stage] and not ("deformable" in values["attention"] and {*axes} & {*PARTS_OF_DEFORMABLE}):
            kept.append(f"stages.{stage}.blocks.")
    return tuple(kept)


# Under `fan_in` biases begin at zero; three experiments that change shapes, names and kinds stand for all.
@pytest.mark.parametrize(
    ("name", "initialisation"),
    [*((name, "published") for name in VARIANTS)]
    + [(name, "fan_in") for name in ("ablate_kernel_5", "control_global", "roadmap_10_datpp")],
)
def test_variants_of_a_seed_start_from_the_same_weights(name, initialisation):
    ours, theirs = start(name, initialisation), start(experiment(name)["against"], initialisation)
    common = {key for key in ours.keys() & theirs.keys() if ours[key].shape == theirs[key].shape}
    assert [key for key in theirs if key.startswith(untouched(name)) and key not in common] == []
    assert sum(map(varies, theirs.values())) > 40
    assert sum(varies(theirs[key]) for key in common) > 0.75 * sum(map(varies, theirs.values()))

    def has_another_range(key):
        """A bias drawn by torch lies within its matrix's or kernel's 1 / sqrt(fan-in)."""
        beside = key.removesuffix("bias") + "weight"
        return initialisation == "published" and key.endswith(".bias") and beside in ours.keys() - common

    assert [k for k in sorted(common) if not torch.equal(ours[k], theirs[k]) and not has_another_range(k)] == []


def networks():
    """Configurations that have, taken together, every file of every part in conf/, and each all kinds of attention."""
    files = {part: sorted(path.stem for path in (CONF / part).glob("*.yaml")) for part in sorted(PARTS_OF_DAT)}
    for number in range(max(map(len, files.values()))):
        cfg = load_config(*(f"{part}={found[number % len(found)]}" for part, found in files.items()))
        kinds = list(cfg["model"]["attention"])
        cfg["model"]["stages"]["three"] |= {"attention": kinds, "depth": len(kinds)}
        cfg["recipe"]["initialisation"] = "published"
        yield cfg


@pytest.fixture(scope="module")
def every_part():
    return list(networks())


def test_nothing_is_left_of_what_constructors_draw(every_part, monkeypatch):
    def spoilt(*arguments):
        net = build(*arguments)
        for parameter in net.parameters():
            nn.init.constant_(parameter, float("nan"))
        return net

    for cfg in every_part:
        for initialisation in ("published", "fan_in"):
            cfg = cfg | {"recipe": cfg["recipe"] | {"initialisation": initialisation}}
            torch.manual_seed(1)
            first = tensors(build_model(cfg))
            torch.manual_seed(2)
            with monkeypatch.context() as patch:
                patch.setattr(config, "build", spoilt)
                again = tensors(build_model(cfg))
            assert [name for name in first if not torch.equal(first[name], again[name])] == []


def test_each_seed_and_each_name_has_weights_of_its_own(every_part):
    for cfg in every_part:
        one, other = tensors(build_model(cfg)), tensors(build_model(cfg | {"seed": cfg["seed"] + 1}))
        drawn = [name for name in dict(one) if varies(one[name])]
        assert [name for name in drawn if torch.equal(one[name], other[name])] == []
        assert [a for a, b in combinations(drawn, 2) if torch.equal(one[a], one[b])] == []
        constant = [n for n in one.keys() - {*drawn} if one[n].is_floating_point()]
        assert [name for name in constant if not any(part in name for part in CONSTANT)] == []


def test_distributions_are_those_of_the_initialisation(every_part):
    """Tables as published, whatever the recipe; layers as torch draws them, within 1 / sqrt(fan-in), or by `fan_in`."""
    spreads = {"published": 3**-0.5, "fan_in": 1.0}
    for initialisation, spread in spreads.items():
        found = {"layers": [], "tables": []}
        for cfg in every_part:
            net = build_model(cfg | {"recipe": cfg["recipe"] | {"initialisation": initialisation}})
            for name, part in net.named_modules():
                if hasattr(part, "bias_table"):
                    std = 0.02 if isinstance(part, NeighborhoodAttention) else 0.01
                    found["tables"].append((name, part.bias_table / std, 1))
                elif isinstance(part, nn.Linear | nn.Conv2d) and part.weight.any():
                    found["layers"].append((name, part.weight * part.weight[0].numel() ** 0.5, spread))
        for values in found.values():
            large = [(name, tensor.std().item(), std) for name, tensor, std in values if tensor.numel() > 90]
            assert len(large) > 15
            assert [(name, std) for name, std, expected in large if std != pytest.approx(expected, rel=0.3)] == []


def test_deformable_convolutions_begin_as_plain_ones_under_every_initialisation():
    cfg = load_config("experiment=control_deformable_convolution")
    for initialisation in INITIALISATIONS:
        net = build_model(cfg | {"recipe": cfg["recipe"] | {"initialisation": initialisation}})
        offsets = [part.to_points for part in net.modules() if hasattr(part, "to_points")]
        assert offsets and not any(p.any() for layer in offsets for p in layer.parameters())


def test_a_layer_that_cannot_draw_is_refused_in_one_line():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.randn(3))

    with pytest.raises(TypeError, match=r"^Scale has parameters and no reset_parameters\(\).*give it one") as refused:
        draw(nn.Sequential(nn.Linear(2, 2), Scale()), seed=0, rule=reset)
    assert "\n" not in str(refused.value)


def test_drawing_leaves_no_trace():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    net = nn.Linear(2, 2, device="meta")
    draw(net, seed=0, rule=reset)
    draw(net.to_empty(device="cpu"), seed=0, rule=reset)
    assert torch.equal(torch.rand(4), expected)


def test_timms_networks_begin_as_timms_unless_the_recipe_says_how():
    cfg = load_config("model=timm/resnet10t", "model.image_size=64")
    starts = {}
    for initialisation in ("published", "fan_in"):
        cfg["recipe"]["initialisation"] = initialisation
        for number in (1, 2):
            torch.manual_seed(number)
            starts[initialisation, number] = build_model(cfg).get_parameter("layer1.0.conv1.weight")
    assert torch.equal(starts["fan_in", 1], starts["fan_in", 2])
    assert not torch.equal(starts["published", 1], starts["published", 2])


# --- images, mixtures, dropped branches


def a_tree_of_images(root):
    random = np.random.RandomState(0)
    for name in ("apple", "bear", "cat"):
        (root / name).mkdir(parents=True)
        for index in range(8):
            Image.fromarray(random.randint(256, size=(40, 48, 3)).astype(np.uint8)).save(root / name / f"{index}.png")


def steps_of(cfg, monkeypatch):
    """Trains, and returns for each step the batch, what the network was given, and the images that branches skipped."""
    steps, step = [], training.ImageClassifier.training_step

    def watched(self, batch, batch_idx):
        seen = [*(tensor.clone() for tensor in batch)]
        hooks = [self.net.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))]
        for part in self.net.modules():
            if isinstance(part, DropPath):
                hooks.append(part.register_forward_hook(lambda _, given, y: seen.append(~y.flatten(1).any(dim=1))))
        loss = step(self, batch, batch_idx)
        for hook in hooks:
            hook.remove()
        steps.append(seen)
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(training.ImageClassifier, "training_step", watched)
        training.train(cfg)
    return steps


@pytest.mark.parametrize(
    ("data", "variants"),
    [
        (["data=digits", "data.scenes_per_epoch=8", "data.val_scenes=4", "data.test_scenes=4"], ["ablate_no_offset"]),
        (["data=folder", "data.num_classes=3", "data.workers=0"], ["control_neighborhood", "roadmap_10_datpp"]),
    ],
    ids=["digits", "augmented"],
)
def test_variants_of_a_seed_see_and_drop_the_same(data, variants, tmp_path, monkeypatch):
    if "data=folder" in data:
        a_tree_of_images(tmp_path / "images")
        data = [*data, f"data.root={tmp_path / 'images'}"]
    recipe = [
        f"recipe.{number}" for number in ("epochs=2", "warmup_epochs=0", "batch_size=4", "mixup=0.8", "cutmix=1.0")
    ]
    others = ["model.drop_path_rate=0.6", "trainer.accelerator=cpu", "progress=lines", "logger=csv", f"runs={tmp_path}"]
    common = [*data, *recipe, *others]
    first = steps_of(load_config("experiment=baseline", *common), monkeypatch)
    for name in variants:
        steps = steps_of(load_config(f"experiment={name}", *common), monkeypatch)
        assert len(steps) == len(first) >= 4
        for seen, expected in zip(steps, first, strict=True):
            assert len(seen) == len(expected) == 2 + 1 + 2 * 8  # batch, mixture, two branches in each block
            assert all(map(torch.equal, seen, expected))
    batches, mixtures = [seen[0] for seen in first], [seen[2] for seen in first]
    assert not any(map(torch.equal, batches, mixtures))
    assert not any(torch.equal(one, other) for one, other in combinations(batches, 2))
    dropped = torch.stack([torch.stack(seen[3:]) for seen in first]).float().mean()
    assert 0.1 < dropped < 0.6
    other = steps_of(load_config("experiment=baseline", *common, "seed=1"), monkeypatch)
    assert not any(
        torch.equal(seen[i], expected[i]) for seen, expected in zip(other, first, strict=True) for i in (0, 2)
    )
