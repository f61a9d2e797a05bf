"""The transcription gives what the published code gave: outputs, positions, gradients, names, steps of training."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
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

from tests.reference.published_dat import PublishedDAT
from tests.reference.published_parts import (
    ConvMLP,
    DeformableAttention,
    LocalAttention,
    NeighborhoodAttention,
    ShiftedAttention,
)

KINDS = {
    "local": LocalAttention,
    "shifted": ShiftedAttention,
    "neighborhood": NeighborhoodAttention,
    "mlp_conv": ConvMLP,
}
# Ablations of the published code, and a kind that no published model has.
NOT_HERE = ("dwc_pe", "no_rpe", "fixed_pe", "log_cpb", "no_offset", "no_offset_stride2", "pyramid")
BLOCKS = [
    name
    for name in names("v?.*")
    if name.split(".")[1] not in ("model", "resize_224_to_384") and name.split(".")[-1] not in NOT_HERE
]


@pytest.mark.parametrize("name", BLOCKS)
def test_block_matches(name):
    golden, metadata = tensors(name)
    release, kind = name.split(".")[:2]
    config = metadata["config"]
    block = DeformableAttention(config, release) if kind == "deformable" else KINDS[kind](**config)
    assert {n: b.shape for n, b in block.named_buffers()} == {n: b.shape for n, b in below(golden, "buffer.").items()}
    block.load_state_dict(below(golden, "param.") | below(golden, "buffer."))
    x = golden["input"].clone().requires_grad_()
    y = block(x)
    (y * golden["cotangent"]).sum().backward()
    assert error(y, golden["output"]) < OUTPUT_TOLERANCE
    assert error(x.grad, golden["grad.input"]) < GRADIENT_TOLERANCE
    if kind == "deformable":
        assert error(block.positions(block.proj_q(x)), golden["positions"].flatten(0, 1)) < OUTPUT_TOLERANCE
    gradients = below(golden, "grad.")
    del gradients["input"]
    assert gradients.keys() == dict(block.named_parameters()).keys()
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for parameter, gradient in gradients.items():
        ours = block.get_parameter(parameter).grad
        if parameter == "proj_k.bias":  # zero but for rounding: softmax doesn't see it
            assert max(gradient.abs().max(), ours.abs().max()) < GRADIENT_TOLERANCE * largest
        else:
            assert error(ours, gradient) < GRADIENT_TOLERANCE, parameter


@pytest.mark.parametrize("name", ["v1.model.dat_tiny", "v2.model.dat_tiny"])
def test_whole_model_matches(name):
    golden, metadata = tensors(name)
    expected = facts(f"{name}.keys")["state_dict"]
    net = PublishedDAT(metadata["config"], name[:2]).eval()
    weights = net.state_dict()
    assert {key: list(tensor.shape) for key, tensor in weights.items()} == expected
    fill_(weights)
    with torch.no_grad():
        assert error(net(images(metadata["input"])), golden["output"]) < OUTPUT_TOLERANCE


def with_defaults(config):
    return {"layer_scale_values": [-1] * 4, **config}


def without_grids(expected):
    """A published buffer that isn't a part of the computation may be left out."""
    return {key: shape for key, shape in expected.items() if not key.endswith("rpe_table_index")}


# One point of DAT++'s stage one lies 1e-6 of the map from a cell's border, where gradients jump by more than 1e-3 (see
# tests/models/test_models_parity.py): on which side it is read is for rounding to decide, from the first step on.
@pytest.mark.parametrize(("release", "steps", "tolerance"), [("v1", 6, TRAJECTORY_TOLERANCE), ("v2", 1, 5e-3)])
def test_training_steps_match(release, steps, tolerance):
    expected = facts(f"{release}.trajectory")
    net = PublishedDAT(expected["config"], release).train()
    fill_(net.state_dict())
    spared = {name for name, p in net.named_parameters() if p.ndim < 2 or name.endswith(("table", "rpb"))}
    groups = [
        {"params": [p for name, p in net.named_parameters() if (name in spared) is alone], "weight_decay": decay}
        for alone, decay in ((False, 0.05), (True, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    x, labels = images(expected["input"]), torch.tensor(expected["labels"])
    for loss_then, norm_then in list(zip(expected["losses"], expected["grad_norms"], strict=True))[:steps]:
        loss = F.cross_entropy(net(x), labels, label_smoothing=expected["label_smoothing"])
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), expected["clip_grad_norm"]).item()
        optimizer.step()
        assert abs(loss.item() - loss_then) / loss_then < tolerance
        assert abs(norm - norm_then) / norm_then < tolerance


@pytest.mark.parametrize("flag", ["dwc_pe", "no_rpe", "fixed_pe", "log_cpb", "no_offset"])
def test_what_no_published_model_has_is_refused(flag):
    with pytest.raises(ValueError, match="only the published models"):
        DeformableAttention(tensors(f"v2.deformable.{flag}")[1]["config"], "v2")
