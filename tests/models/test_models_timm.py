"""The networks as timm's: in its registry, with its methods; any size of images; activations computed twice."""

import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import save_file
from small_networks import small
from timm.models._manipulate import group_parameters
from timm.optim import create_optimizer_v2

import src.models  # noqa: F401 (registers)
from src.config import CONF, load_config
from src.models.checkpointing import checkpoint_activations
from src.models.geometry import GeometryError
from src.models.registry import NAMES
from src.optim import decay_groups


def refused(error, match, *arguments, **options):
    with pytest.raises(error, match=match) as caught:
        timm.create_model(*arguments, **options)
    assert "\n" not in str(caught.value)


# --- the registry


def test_timm_knows_the_names():
    assert timm.list_models(module="registry") == sorted(NAMES) == timm.list_models("dat*")


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_its_config(name):
    cfg, published = load_config(f"model={name}")["model"], timm.get_pretrained_cfg(name)
    assert published.input_size == (3, cfg["image_size"], cfg["image_size"])
    with torch.device("meta"):
        net = timm.create_model(name)
        assert net(torch.zeros(1, 3, 97, 160)).shape == (1, 1000)
        with pytest.raises(GeometryError, match=r"images of 224x16 pixels: stage \w+: ") as caught:
            net(torch.zeros(1, 3, 224, 16))
        assert "\n" not in str(caught.value)
    assert [info["num_chs"] for info in net.feature_info] == [stage["dim"] for stage in cfg["stages"].values()]
    assert net.head.out_features == net.num_classes == 1000 and net.num_features == net.head.in_features
    assert net.get_submodule(published.first_conv).in_channels == 3
    assert net.get_submodule(published.classifier) is net.get_classifier()
    transform = timm.data.resolve_model_data_config(net)
    assert (transform["crop_pct"], transform["interpolation"]) == (1.0 if name == NAMES[-1] else 0.875, "bicubic")


def test_what_may_be_changed():
    net = timm.create_model("datpp_tiny", num_classes=7, in_chans=1, img_size=(96, 64), drop_path_rate=0.4)
    assert net(torch.zeros(2, 1, 96, 64)).shape == (2, 7)
    assert net.stages["three"].blocks[1].attention.position_bias.bias_table.shape[1:] == (11, 7)
    assert net.stages["four"].blocks[-1].drop_path.drop_prob == pytest.approx(0.4)
    assert timm.create_model("dat_tiny", num_classes=0, img_size=64)(torch.zeros(1, 3, 64, 64)).shape == (1, 768)
    flat = timm.create_model("dat_tiny", num_classes=0, global_pool="", img_size=64)
    assert flat(torch.zeros(1, 3, 64, 96)).shape == (1, 768, 2, 3)


def test_what_may_not_is_refused_in_one_line():
    refused(TypeError, "unexpected keyword argument 'window_size'; it takes num_classes", "dat_tiny", window_size=3)
    refused(ValueError, "python -m src.checkpoint import", "dat_tiny", pretrained=True)
    refused(ValueError, "global_pool is 'max'; it must be 'avg'", "dat_tiny", global_pool="max")
    refused(ValueError, "num_classes is 1000, must be 0", "dat_tiny", global_pool="")
    refused(ValueError, "drop_rate must be 0", "dat_tiny", drop_rate=0.1)
    given = {"pretrained_cfg_overlay": {"file": "nowhere.safetensors"}}
    refused(ValueError, "nowhere.safetensors isn't there", "dat_tiny", pretrained=True, **given)
    refused(GeometryError, "stage three", "dat_tiny", img_size=16)


def test_weights_come_from_a_file_and_fit_other_sizes_classes_and_channels(tmp_path):
    file = tmp_path / "weights.safetensors"
    torch.manual_seed(0)
    first = timm.create_model("dat_tiny", img_size=64).eval()
    save_file(first.state_dict(), file)
    given = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        same = timm.create_model("dat_tiny", img_size=64, **given).eval()
        torch.testing.assert_close(same(images), first(images), rtol=0, atol=0)
        other = timm.create_model("dat_tiny", img_size=96, num_classes=5, in_chans=1, **given).eval()
        assert other(torch.randn(1, 1, 96, 96)).shape == (1, 5)
    assert torch.equal(
        other.stages["one"].blocks[0].attention.to_qkv.weight, same.stages["one"].blocks[0].attention.to_qkv.weight
    )
    torch.testing.assert_close(other.stem[0].weight, same.stem[0].weight.sum(1, keepdim=True))
    features = timm.create_model("dat_tiny", img_size=64, features_only=True, **given).eval()
    with torch.no_grad():
        torch.testing.assert_close(features(images)[2], first.features(images)[2])


@pytest.mark.parametrize("name", ["dat_tiny", "datpp_tiny"])
def test_features_only(name):
    with torch.device("meta"):
        net = timm.create_model(name, features_only=True)
        maps = net(torch.zeros(1, 3, 96, 128))
        assert net.feature_info.reduction() == [4, 8, 16, 32]
        assert [m.shape[1] for m in maps] == net.feature_info.channels()
        assert [m.shape[2:] for m in maps] == [(96 // r, 128 // r) for r in net.feature_info.reduction()]


def test_features_of_some_stages_need_no_others():
    with torch.device("meta"):
        net = timm.create_model("dat_tiny", features_only=True, out_indices=(0, 2))
        maps = net(torch.zeros(1, 3, 32, 32))  # too small for the last stage
    assert [m.shape[1] for m in maps] == net.feature_info.channels() == [96, 384]
    assert list(net.model.stages) == ["one", "two", "three"] and not list(net.model.norm.parameters())


# --- the methods


def test_intermediates_are_the_maps_of_the_stages():
    net, images = small("datpp"), torch.randn(2, 3, 64, 64)
    maps = net.features(images)
    last, found = net.forward_intermediates(images, norm=True)
    torch.testing.assert_close(found, maps)
    torch.testing.assert_close(last, maps[-1])
    torch.testing.assert_close(net.forward_features(images), maps[-1])
    torch.testing.assert_close(net.forward_head(maps[-1]), net(images))
    torch.testing.assert_close(net.forward_head(maps[-1], pre_logits=True), maps[-1].mean((2, 3)))
    raw = net.forward_intermediates(images, indices=1, intermediates_only=True)
    torch.testing.assert_close(net.norm(raw[0]), maps[-1])
    seen = []
    net.stages["three"].register_forward_hook(lambda *given: seen.append(1))
    early = net.forward_intermediates(images, indices=[1, 0], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(early, [maps[1], maps[0]])
    assert not seen
    with pytest.raises(ValueError, match="output_fmt is 'NLC'; maps are NCHW"):
        net.forward_intermediates(images, output_fmt="NLC")


def test_heads_are_replaced():
    net, images = small("dat"), torch.randn(1, 3, 64, 64)
    net.reset_classifier(3)
    assert net(images).shape == (1, 3) and net.get_classifier() is net.head
    net.reset_classifier(0, "")
    assert net(images).shape == (1, 128, 2, 2) and net.num_classes == 0
    net.double().reset_classifier(4, "avg")
    assert net(images.double()).dtype == torch.float64


@pytest.mark.parametrize("release", ["dat", "datpp"])
def test_groups_follow_the_network_and_decay_is_the_published(release):
    net = small(release, overrides=("position_bias=continuous", "local_encoding=depthwise"))
    order = list(dict(net.named_parameters()))
    blocks = sum(len(stage.blocks) for stage in net.stages.values())
    for coarse, layers in ((False, blocks + 2), (True, 4 + 2)):
        groups = group_parameters(net, net.group_matcher(coarse))
        assert [name for layer in sorted(groups) for name in groups[layer]] == order
        assert len(groups) == layers
    theirs = create_optimizer_v2(net, opt="adamw", weight_decay=0.1).param_groups
    ours = decay_groups(net, 0.1)
    assert {g["weight_decay"]: {id(p) for p in g["params"]} for g in theirs} == {
        g["weight_decay"]: {id(p) for p in g["params"]} for g in ours
    }


# --- any size


SIZES = [(64, 64), (64, 96), (70, 45), (131, 64), (160, 160), (40, 36)]


@pytest.mark.parametrize("release", ["dat", "datpp"])
def test_one_network_takes_every_size_in_any_order(release):
    """Maps are ceil(size / stride), images of a batch don't see one another, and no size is remembered."""
    net = small(release)
    images = {size: torch.randn(2, 3, *size) for size in SIZES}
    with torch.no_grad():
        first = {}
        for size in SIZES:
            maps = net.features(images[size])
            assert [m.shape[2:] for m in maps] == [tuple(-(-n // r) for n in size) for r in (4, 8, 16, 32)]
            first[size] = net(images[size])
            assert first[size].isfinite().all()
        for size in reversed(SIZES):
            torch.testing.assert_close(net(images[size]), first[size], rtol=0, atol=0)
            torch.testing.assert_close(net(images[size][1:]), first[size][1:], rtol=1e-4, atol=1e-5)


# --- activations computed twice


def test_checkpointing_saves_memory_and_changes_nothing():
    net = small("datpp", drop_path_rate=0.5).train()
    images = torch.randn(4, 3, 64, 64)

    def step():
        saved = {}  # by storage: what several operators keep counts once

        def count(tensor):
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        net.zero_grad()
        torch.manual_seed(5)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = net(images).square().sum()
        loss.backward()
        return loss.detach(), [p.grad.clone() for p in net.parameters()], sum(saved.values())

    loss, gradients, kept = step()
    net.set_grad_checkpointing()
    again, same, less = step()
    assert torch.equal(loss, again) and all(torch.equal(a, b) for a, b in zip(gradients, same, strict=True))
    assert less < kept / 2
    net.set_grad_checkpointing(False)
    assert step()[2] == kept


def test_hydra_goes_on_after_a_network_was_built():
    """Building reads a config of its own, also in a job of src.train."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        timm.create_model("dat_tiny", img_size=64)
        assert compose("train").study == "default"


def test_checkpointing_is_asked_of_any_network():
    checkpoint_activations(timm.create_model("resnet10t"))
    with pytest.raises(ValueError, match="activation_checkpointing must be false for Linear"):
        checkpoint_activations(torch.nn.Linear(1, 1))
