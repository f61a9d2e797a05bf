"""The kernels for CUDA: on a GPU where there is one, by Triton's interpreter elsewhere.

The interpreter has to be asked for before Triton is imported, so this file runs itself in a process of its own.
"""

import os
import subprocess
import sys

import pytest
import torch
from operators import NAMES, error, example, results

from src.benchmarks.measure import peak_bytes

triton = pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
runs_here = pytest.mark.skipif(DEVICE == "cpu" and not INTERPRETED, reason="the interpreter runs it, below")

CASES = {
    "published": {"map_size": (5, 7), "keys": (3, 4)},
    "DAT++": {"map_size": (4, 6), "keys": (2, 3), "grid": "shifted", "dim": 32},
    "another map's table": {"map_size": (6, 5), "keys": (3, 3), "table_size": (7, 11), "grid": "aligned"},
    "points off the map": {"map_size": (4, 4), "keys": (3, 3), "far": 2.0},
    "several blocks, the last ones cut": {"map_size": (9, 9), "keys": (8, 9), "batch": 1, "groups": 1},
}


@runs_here
@pytest.mark.parametrize("case", CASES)
def test_triton_is_the_definition(case):
    arguments = example(**{"dim": 16, "groups": 2, **CASES[case]}, device=DEVICE)
    expected = results("reference", arguments)
    rounded = [t.detach().float().requires_grad_() for t in arguments]
    found = results("triton", rounded)
    assert error(found["output"], expected["output"]) < 2e-6
    for name in NAMES:
        assert error(found[name], expected[name]) < 1e-5, name


@runs_here
def test_bfloat16_is_within_its_rounding():
    """As for the other implementations: one place of bfloat16, of the largest number."""
    arguments = [t.detach() for t in example(map_size=(6, 5), keys=(4, 4), dim=32, device=DEVICE)]
    rounded = [t.bfloat16() for t in arguments[:3]] + [t.float() for t in arguments[3:]]
    exact = results("reference", [t.double().requires_grad_() for t in rounded])
    found = results("triton", [t.requires_grad_() for t in rounded])
    assert found["output"].dtype == found["q"].dtype == torch.bfloat16 and found["points"].dtype == torch.float32
    assert all(error(found[name], exact[name]) < 2**-7 for name in NAMES)


@runs_here
def test_torch_compile_takes_it_whole():
    from src.models import bilinear
    from src.models.deformable_op import BiasTable, deformable_attention

    arguments = example(map_size=(3, 4), keys=(2, 2), dim=16, batch=1, dtype=torch.float32, device=DEVICE)

    def attend(q, k, v, table, points, queries):
        return deformable_attention(q * 2, k, v, BiasTable(table, points, queries, bilinear.grid_sample, "triton"))

    both = []
    for run in (attend, torch.compile(attend, fullgraph=True, backend="aot_eager")):
        output = run(*arguments)
        both.append([output, *torch.autograd.grad(output.square().sum(), arguments[:5])])
    torch.testing.assert_close(*both)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter's functions aren't compiled")
@pytest.mark.parametrize("kernel", ["_forward_kernel", "_backward_kernel"])
def test_it_compiles_for_a_gpu(kernel):
    """Without one: what the interpreter lets pass, the compiler may not."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from src.models.deformable_op import triton as kernels

    constants = {"DIM": 32, "QUERIES": 32, "KEYS": 32, "PRECISION": "ieee"}
    constants |= {"COPIES": 8} if kernel == "_backward_kernel" else {}
    narrow = {"q", "k", "v", "out", "to_out", "to_k", "to_v"}
    whole = {"heads", "heads_of_group", "queries", "keys", "map_width", "table_height", "table_width"}
    function = getattr(kernels, kernel)

    def kind(name):
        if name in constants or name in whole:
            return "constexpr" if name in constants else "i32"
        return "fp32" if name == "scale" else "*bf16" if name in narrow else "*fp32"

    source = ASTSource(fn=function, signature={n: kind(n) for n in function.arg_names}, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert "wgmma" in compiled.asm["ptx"] or "mma.sync" in compiled.asm["ptx"]  # products on tensor cores


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
def test_memory_is_linear_in_the_number_of_pixels():
    """Four times the pixels: 16 times the scores, but four times the memory."""
    held = []
    for side in (28, 56):
        arguments = example(map_size=(side, side), keys=(side, side), dim=32, dtype=torch.float32, device=DEVICE)
        held.append(peak_bytes(lambda given=arguments: results("triton", given), DEVICE))
    assert held[1] < 5 * held[0]


@pytest.mark.skipif(INTERPRETED, reason="this is that process")
def test_all_of_it_by_the_interpreter():
    command = [sys.executable, "-m", "pytest", "--durations=0", __file__]
    child = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert child.returncode == 0, child.stdout + child.stderr
    assert f"{len(CASES) + 2} passed, 4 skipped" in child.stdout
