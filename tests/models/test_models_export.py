"""Traced whole: torch.compile without graph breaks, torch.export, ONNX in onnxruntime."""

import sys
from pathlib import Path

import pytest
import torch
from small_networks import small
from torch.export import Dim

from src import export
from src.onnx_files import NotInstalled, difference, to_onnx

# One block of each kind that the published networks have, since tracing takes seconds per block.
KINDS = {"dat": (["shifted_window"], ["deformable"]), "datpp": (["neighborhood"], ["deformable"])}


def brief(release, **options):
    return small(release, stages=2, image_size=48, attention=KINDS[release], **options)


@pytest.mark.parametrize("release", KINDS)
def test_compiles_whole_with_equal_outputs_and_gradients(release):
    """`aot_eager` traces forward and backward as inductor does, and leaves out the code, which takes minutes."""
    net, images = brief(release, drop_path_rate=0.3).train(), torch.randn(3, 3, 48, 48)
    net.set_grad_checkpointing()
    results = []
    for run in (net, torch.compile(net, fullgraph=True, backend="aot_eager")):
        net.zero_grad()
        torch.manual_seed(1)
        logits = run(images)
        logits.square().sum().backward()
        results.append([logits.detach(), *(p.grad.clone() for p in net.parameters())])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("release", KINDS)
def test_exports_to_onnx_for_every_batch(release, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    net, path = brief(release), tmp_path / "net.onnx"
    to_onnx(net, path, image_size=(48, 48))
    for batch in (1, 5):
        assert difference(net, path, torch.randn(batch, 3, 48, 48)) < 1e-4


def test_one_exported_program_takes_every_size():
    net = small("datpp", stages=1, image_size=48, attention=(["deformable"],))
    sizes = ({0: Dim.DYNAMIC, 2: Dim.AUTO, 3: Dim.AUTO},)
    program = torch.export.export(net, (torch.randn(2, 3, 48, 80),), dynamic_shapes=sizes).module()
    for size in ((2, 48, 80), (3, 64, 64), (1, 50, 45)):
        images = torch.randn(size[0], 3, *size[1:])
        torch.testing.assert_close(program(images), net(images))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dat_tny"], "no model 'dat_tny'; ours are dat_base, dat_base_384, dat_small, dat_tiny, datpp_base"),
        (["dat_tiny", "--image-size", "16"], "stage three: a 1x1 map is too small"),
        (["dat_tiny", "--weights", "nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, says, capsys):
    assert export.main([*arguments, "-o", "never.onnx"]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert not Path("never.onnx").exists()


def test_without_the_packages_it_says_which(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(NotInstalled, match=r'onnx not installed: pip install "datlab\[export\]"'):
        to_onnx(torch.nn.Linear(1, 1), tmp_path / "never.onnx", image_size=(8, 8))
