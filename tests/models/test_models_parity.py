"""Our parts give what the published code gives: outputs, positions, gradients, names, and six steps of training."""

import re

import pytest
import torch
import torch.nn.functional as F
from golden import (
    GRADIENT_TOLERANCE,
    OUTPUT_TOLERANCE,
    TRAJECTORY_TOLERANCE,
    below,
    error,
    facts,
    fill_,
    images,
    names,
    tensors,
)

from src.models import upstream
from src.models.sampling import AveragePooling
from src.optim import decay_groups

BLOCKS = [*names("v1.deformable.*"), "v1.local", "v1.shifted", "v2.pyramid"]
MODELS = ["dat_tiny", "dat_small", "dat_base", "dat_base_384"]


@pytest.mark.parametrize("name", BLOCKS)
def test_block_matches(name):
    golden, metadata = tensors(name)
    kind = name.split(".")[1]
    block = upstream.build_block(kind, metadata["config"]).eval()
    upstream.load_published(block, below(golden, "param."))
    x = golden["input"].clone().requires_grad_()
    y = block(x)
    (y * golden["cotangent"]).sum().backward()
    assert error(y, golden["output"]) < OUTPUT_TOLERANCE
    assert error(x.grad, golden["grad.input"]) < GRADIENT_TOLERANCE
    if kind == "deformable":
        assert error(block.choose_points(block.to_q(x)), golden["positions"]) < OUTPUT_TOLERANCE

    ours, published = upstream.to_published(block, gradients=True), below(golden, "grad.")
    del published["input"]
    assert ours.keys() == published.keys()
    largest = max(gradient.abs().max() for gradient in published.values())
    for parameter, gradient in published.items():
        if parameter.endswith("proj_k.bias"):
            # Softmax doesn't see a constant added to all keys: exactly zero but for rounding, in both.
            assert max(gradient.abs().max(), ours[parameter].abs().max()) < GRADIENT_TOLERANCE * largest
        else:
            assert error(ours[parameter], gradient) < GRADIENT_TOLERANCE, parameter


@pytest.mark.parametrize("name", names("v2.deformable.no_offset*"))
def test_the_published_switch_for_no_offsets_is_zero_offset_average_pooling_and_no_bias(name):
    """Which is what `experiment=no_offset_upstream` builds of our parts."""
    golden, metadata = tensors(name)
    config = metadata["config"] | {"stage_idx": 2, "use_pe": False}
    block = upstream.build_block("deformable", config).eval()
    block.sampling = AveragePooling(stride=config["stride"])
    unused = [key for key in below(golden, "param.") if key.startswith("conv_offset")]
    parameters = {key: value for key, value in below(golden, "param.").items() if key not in unused}
    upstream.load_published(block, parameters)
    assert unused  # the published code keeps a network that it doesn't use
    assert error(block(golden["input"]), golden["output"]) < OUTPUT_TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_whole_model_matches(name):
    golden, metadata = tensors(f"v1.model.{name}")
    expected = facts(f"v1.model.{name}.keys")
    model = upstream.build(metadata["config"]).eval()
    weights = {key: torch.zeros(shape) for key, shape in expected["state_dict"].items()}
    fill_(weights)
    report = upstream.load_published(model, weights)
    with torch.no_grad():
        assert error(model(images(metadata["input"])), golden["output"]) < OUTPUT_TOLERANCE
    assert report.resized == ()
    assert sum(p.numel() for p in model.parameters()) == expected["params"]
    learnt = {key: shape for key, shape in expected["state_dict"].items() if not key.endswith(upstream.DERIVED)}
    assert {key: list(tensor.shape) for key, tensor in upstream.to_published(model).items()} == learnt


def test_resized_tables_match():
    golden, metadata = tensors("v1.resize_224_to_384")
    small, large = (upstream.build(metadata[f"config_{side}"]).eval() for side in (224, 384))
    weights = {name: tensor.clone() for name, tensor in upstream.to_published(small).items()}
    fill_(weights)
    report = upstream.load_published(large, weights)
    tables = below(golden, "table.")
    assert set(report.resized) == set(tables)
    resized = upstream.to_published(large)
    for name, table in tables.items():
        assert error(resized[name], table) < OUTPUT_TOLERANCE, name
    with torch.no_grad():
        assert error(large(images(metadata["input"])), golden["output"]) < OUTPUT_TOLERANCE


def test_weight_decay_matches():
    expected = facts("v1.weight_decay.dat_tiny")
    model = upstream.build(tensors("v1.model.dat_tiny")[1]["config"])
    decays = {id(p): group["weight_decay"] for group in decay_groups(model, 0.05) for p in group["params"]}
    # Marked in the tensors themselves, so that the names come out of the published mapping.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(decays[id(parameter)])
    decayed = {name for name, tensor in upstream.to_published(model).items() if tensor.flatten()[0] > 0}
    assert decayed == set(expected["decay"])
    assert set(upstream.to_published(model)) - decayed == set(expected["no_decay"])


def test_six_training_steps_match():
    expected = facts("v1.trajectory")
    model = upstream.build(expected["config"]).train()
    weights = {name: tensor.clone() for name, tensor in upstream.to_published(model).items()}
    fill_(weights)
    upstream.load_published(model, weights)
    x, labels = images(expected["input"]), torch.tensor(expected["labels"])
    optimizer = torch.optim.AdamW(decay_groups(model, 0.05), lr=1e-3)
    for loss, norm in zip(expected["losses"], expected["grad_norms"], strict=True):
        ours = F.cross_entropy(model(x), labels, label_smoothing=expected["label_smoothing"])
        optimizer.zero_grad()
        ours.backward()
        our_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), expected["clip_grad_norm"])
        optimizer.step()
        assert ours.item() == pytest.approx(loss, rel=TRAJECTORY_TOLERANCE)
        assert our_norm.item() == pytest.approx(norm, rel=TRAJECTORY_TOLERANCE)


@pytest.fixture
def small():
    config = facts("v1.trajectory")["config"]
    model = upstream.build(config)
    return model, {name: tensor.clone() for name, tensor in upstream.to_published(model).items()}


def test_missing_and_left_over_names_are_refused_and_nothing_is_loaded(small):
    model, weights = small
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = {name: tensor + 1 for name, tensor in weights.items()}
    head = weights.pop("cls_head.bias")
    with pytest.raises(KeyError, match=r"lack 1 names.*cls_head\.bias"):
        upstream.load_published(model, weights)
    with pytest.raises(KeyError, match=r"have 1 names.*stranger"):
        upstream.load_published(model, weights | {"cls_head.bias": head, "stranger": head})
    with pytest.raises(ValueError, match=re.escape("cls_head.bias make (3,), but head.bias is (10,)")):
        upstream.load_published(model, weights | {"cls_head.bias": head[:3]})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_derived_buffers_may_be_there_or_not(small):
    model, weights = small
    upstream.load_published(model, weights | {"stages.0.attns.1.attn_mask": torch.zeros(1)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop_rate": 0.1}, "drop_rate is 0.1"),
        ({"use_conv_patches": True}, "use_conv_patches"),
        ({"dim_stem": 7}, "dim_stem 7"),
        ({"ksizes": [9, 7, 5, 3]}, "doesn't know: ksizes"),
    ],
)
def test_what_cannot_be_reproduced_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        upstream.build(facts("v1.trajectory")["config"] | change)


def test_published_defaults_may_be_left_out_and_the_rest_may_not():
    config = facts("v1.trajectory")["config"]
    short = {key: value for key, value in config.items() if key not in upstream.DEFAULTS or key == "num_classes"}
    shapes = [{name: p.shape for name, p in upstream.build(c).named_parameters()} for c in (config, short)]
    assert shapes[0] == shapes[1]
    with pytest.raises(ValueError, match="lacks dims, heads"):
        upstream.build({key: value for key, value in config.items() if key not in ("dims", "heads")})


def test_unknown_release_and_kind_are_refused():
    with pytest.raises(ValueError, match="v9"):
        upstream.build(facts("v1.trajectory")["config"], release="v9")
    with pytest.raises(ValueError, match="slide"):
        upstream.build_block("slide", {})
