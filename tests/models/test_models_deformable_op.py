"""All implementations of deformable attention are one function; `auto` chooses among them and says why."""

import logging
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import GRIDS, NAMES, error, example, results

from src.benchmarks.measure import saved_bytes
from src.config import load_config
from src.models import bilinear
from src.models.attention.attend import attend, attention_weights
from src.models.deformable_op import BiasTable, choose, fused
from src.models.deformable_op.cells import Taps
from src.training import check

IMPLEMENTATIONS = ("dense", "fused")  # held to `reference`; a new one joins, and inherits the contract
WEIGHTS = {"dense": 1, "fused": 0}  # how often attention weights are kept for the gradient
READS = (bilinear.grid_sample, bilinear.gather)

sizes = st.integers(2, 6)


@st.composite
def geometries(draw):
    map_size = draw(st.tuples(sizes, sizes))
    own = tuple(2 * n - 1 for n in map_size)
    return {
        "map_size": map_size,
        "keys": draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
        "table_size": draw(st.sampled_from([own, own, (5, 9), (13, 7), (27, 27)])),
        "grid": draw(st.sampled_from(sorted(GRIDS))),
        "batch": draw(st.integers(1, 3)),
        "groups": draw(st.integers(1, 2)),
        "heads_of_group": draw(st.integers(1, 3)),
        "far": draw(st.sampled_from([0.5, 1.0, 1.5, 4.0])),  # 4: many keys whose cells are all off the table
        "seed": draw(st.integers(0, 99)),
    }


@settings(max_examples=60, deadline=None)
@given(geometries(), st.sampled_from([1, 30, 200, 2**20]), st.sampled_from([1, 6]))
def test_fused_is_the_definition_on_any_geometry(geometry, scores, fewest_rows):
    """Whatever fits a block: images, groups, heads, or rows."""
    arguments = example(**geometry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "SCORES", scores)
        patch.setattr(fused, "FEWEST_ROWS", fewest_rows)
        found, expected = results("fused", arguments), results("reference", arguments)
    assert_close(found, expected)


@settings(max_examples=40, deadline=None)
@given(geometries(), st.sampled_from(READS))
def test_dense_is_the_definition_on_any_geometry(geometry, read):
    """Reading by grid_sample, whose gradient it asks for itself, and by anything else."""
    arguments = example(**geometry)
    assert_close(results("dense", arguments, read=read), results("reference", arguments))


def assert_close(found, expected):
    for name in NAMES:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kernel", IMPLEMENTATIONS)
def test_gradients(kernel, grid):
    *arguments, queries = example(map_size=(3, 4), keys=(2, 2), grid=grid, batch=1, heads_of_group=1, dim=2)
    torch.autograd.gradcheck(by(kernel, queries), arguments)


def by(kernel, queries, read=bilinear.grid_sample):
    def run(q, k, v, table, points):
        return attend(q, k, v, BiasTable(table, points, queries, read, kernel))

    return run


@pytest.mark.parametrize("read", READS)
def test_second_derivatives_of_dense(read):
    *arguments, queries = example(map_size=(2, 3), keys=(2, 2), batch=1, groups=1, heads_of_group=2, dim=2)
    torch.autograd.gradgradcheck(by("dense", queries, read), arguments)


@pytest.mark.parametrize("read", READS)
def test_a_batch_of_dense_attentions(read):
    """`torch.func` goes through: seeds stacked in one program."""
    *arguments, queries = example(map_size=(3, 4), keys=(2, 3))
    arguments = [t.detach() for t in arguments]
    stacked = [torch.stack([t, 0.9 * t]) for t in arguments]

    def gradients(*tensors):
        return torch.func.grad(lambda *given: by("dense", queries, read)(*given).square().sum(), tuple(range(5)))(
            *tensors
        )

    together = torch.func.vmap(gradients)(*stacked)
    for index in range(2):
        alone = gradients(*(t[index] for t in stacked))
        torch.testing.assert_close(tuple(t[index] for t in together), alone)


@pytest.mark.parametrize(("kernel", "output"), [("dense", 2e-6), ("fused", 1e-6)])
def test_float32_is_within_1e_6_and_gradients_within_1e_5(kernel, output):
    """Twice that where displacements are rounded for grid_sample, as in the definition, whose errors are as large."""
    arguments = example(map_size=(14, 14), keys=(14, 14), dim=32)
    expected = results("reference", arguments)
    rounded = [t.detach().float().requires_grad_() for t in arguments]
    found, plain = results(kernel, rounded), results("reference", rounded)
    assert error(found["output"], expected["output"]) < output
    for name in NAMES:
        assert error(found[name], expected[name]) < min(1e-5, 1.5 * error(plain[name], expected[name]) + 1e-7), name


@pytest.mark.parametrize("kernel", IMPLEMENTATIONS)
def test_bfloat16_is_within_its_rounding(kernel):
    """Against float64 of the same rounded numbers: 2^-7 is one place of bfloat16, of the largest number. Positions,
    bias and softmax are float32, as in the definition, whose errors are of the same size."""
    arguments = [t.detach() for t in example(map_size=(12, 10), keys=(6, 5), dim=32)]
    rounded = [t.bfloat16() for t in arguments[:3]] + [t.float() for t in arguments[3:]]
    exact = results("reference", [t.double().requires_grad_() for t in rounded])
    found, plain = (results(name, [t.requires_grad_() for t in rounded]) for name in (kernel, "reference"))
    assert found["output"].dtype == found["q"].dtype == torch.bfloat16 and found["points"].dtype == torch.float32
    for name in NAMES:
        assert error(found[name], exact[name]) < 2**-7, name
        assert error(found[name], exact[name]) < 2 * error(plain[name], exact[name]) + 2**-9, name


@pytest.mark.parametrize("kernel", IMPLEMENTATIONS)
def test_autocast_multiplies_in_its_type_and_keeps_positions(kernel):
    arguments = [t.detach().float().requires_grad_() for t in example(map_size=(5, 6), keys=(3, 2), dim=16)]
    with torch.autocast("cpu", torch.bfloat16):
        found = results(kernel, arguments)
    expected = results(kernel, arguments)
    assert found["output"].dtype == torch.bfloat16 and found["q"].dtype == torch.float32
    assert 0 < error(found["points"], expected["points"]) < 2**-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernel", IMPLEMENTATIONS)
def test_what_is_kept_for_the_gradient(kernel, dtype):
    """Its arguments, and the weights once or not at all; bfloat16 as under autocast, where positions are float32."""
    *maps, table, points, queries = example(map_size=(16, 16), keys=(16, 16), dim=8, dtype=torch.float32)
    arguments = [*(t.detach().to(dtype).requires_grad_() for t in maps), table, points]

    def kept(kernel):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return saved_bytes(lambda: by(kernel, queries)(*arguments))

    given = sum(t.untyped_storage().nbytes() for t in (*arguments, queries))
    weights = maps[0].shape[0] * maps[0].shape[1] * 256 * 256 * dtype.itemsize
    assert kept(kernel) == given + WEIGHTS[kernel] * weights
    assert kept("reference") > given + 1.5 * weights


@pytest.mark.parametrize("kernel", IMPLEMENTATIONS)
def test_sums_are_made_in_a_fixed_order(kernel):
    arguments = example(map_size=(9, 8), keys=(7, 8), dtype=torch.float32)
    first, second = results(kernel, arguments), results(kernel, arguments)
    assert all(torch.equal(first[name], second[name]) for name in NAMES)


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("frozen", range(5))
@pytest.mark.parametrize("kernel", IMPLEMENTATIONS)
def test_only_what_is_asked_for_has_a_gradient(kernel, frozen, read):
    *arguments, queries = example(map_size=(3, 3), keys=(2, 2))
    expected = torch.autograd.grad(by("reference", queries)(*arguments).sum(), arguments)
    given = [t.detach().requires_grad_(i != frozen) for i, t in enumerate(arguments)]
    by(kernel, queries, read)(*given).sum().backward()
    for index, gradient in enumerate(expected):
        if index == frozen:
            assert given[index].grad is None
        else:
            torch.testing.assert_close(given[index].grad, gradient)


@pytest.mark.parametrize("kernel", IMPLEMENTATIONS)
def test_points_that_are_no_numbers_give_no_numbers(kernel):
    """As by the definition, and not an error: a run that diverges is to be found out by its loss."""
    *arguments, queries = example(map_size=(3, 3), keys=(2, 2), groups=1)
    with torch.no_grad():
        arguments[4][0, 0, 0, 0] = float("nan")
        arguments[4][1, 0, 0, 0] = float("inf")
    output = by(kernel, queries)(*arguments)
    assert output[0].isnan().all()


@pytest.mark.parametrize("kernel", IMPLEMENTATIONS)
def test_weights_are_those_that_attend_uses(kernel):
    q, k, v, table, points, queries = example(map_size=(3, 4), keys=(2, 3))
    bias = BiasTable(table, points, queries, bilinear.grid_sample, kernel)
    weights = attention_weights(q, k, bias)
    torch.testing.assert_close(weights, attention_weights(q, k, bias.dense()))
    torch.testing.assert_close(weights @ v, attend(q, k, v, bias))


@pytest.mark.parametrize(
    ("step", "number", "runs"),
    [(1.0, 2, 1), (13 / 14, 3, 1), (2.0, 2, 14), (13 / 49, 3, None)],
    ids=["DAT++", "published", "a table twice as fine", "a larger map"],
)
def test_the_grids_of_both_papers_are_read_in_one_run(step, number, runs):
    taps = Taps.of([step * i for i in range(14)])
    assert taps.number == number and (runs is None or len(taps.runs) == runs)
    for start, length, row in taps.runs:
        for i in range(length):
            lowest = taps.base + row + i
            assert lowest - 1e-9 <= step * (start + i) < lowest + number - 1 + 1e-9


# What is chosen


def of(map_size, keys, *, read=bilinear.auto, dtype=torch.float32, device="cpu"):
    """q and a bias without values."""
    q = torch.empty(1, 2, map_size[0] * map_size[1], 32, dtype=dtype, device=device)
    points = torch.empty(1, 1, *keys, 2, device=device)
    return q, BiasTable(torch.empty(2, 3, 3), points, torch.empty(*map_size, 2), read, "auto")


@pytest.fixture(autouse=True)
def nothing_said():
    with choose.watched():
        yield


@pytest.mark.parametrize(
    ("map_size", "keys", "kernel"),
    [((56, 56), (56, 56), "fused"), ((28, 28), (28, 28), "dense"), ((1024, 1024), (7, 7), "dense")],
)
def test_auto_takes_blocks_where_weights_are_many(map_size, keys, kernel):
    assert choose.choose("auto", *of(map_size, keys)).kernel == kernel


def test_auto_reads_by_gather_but_once(deterministic):
    """`dense` would do so again for the gradient."""
    assert choose.choose("auto", *of((14, 14), (14, 14), read=bilinear.auto)).kernel == "dense"
    assert choose.choose("auto", *of((14, 14), (14, 14), read=bilinear.gather)).kernel == "reference"
    assert choose.choose("auto", *of((28, 28), (28, 28), read=bilinear.gather)).kernel == "fused"
    deterministic()
    assert choose.choose("auto", *of((14, 14), (14, 14), read=bilinear.auto)).kernel == "reference"
    assert choose.choose("dense", *of((14, 14), (14, 14), read=bilinear.auto)).kernel == "dense"


@pytest.fixture
def deterministic():
    yield lambda: torch.use_deterministic_algorithms(True)
    torch.use_deterministic_algorithms(False)


def test_dense_reads_as_determinism_asks(deterministic):
    arguments = example(map_size=(3, 4), keys=(2, 3))
    deterministic()
    assert_close(results("dense", arguments, read=bilinear.auto), results("reference", arguments, read=bilinear.gather))


@pytest.mark.parametrize("name", ["auto", *choose.UNCOMPILED])
@pytest.mark.parametrize("side", [14, 28])
def test_compilers_are_given_the_definition(name, side, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    choice = choose.choose(name, *of((side, side), (side, side)))
    assert choice.kernel == "reference" and "torch.compile" in choice.reason


@pytest.mark.parametrize("name", choose.NAMES)
def test_costs_are_counted_by_the_definition(name):
    assert choose.choose(name, *of((28, 28), (28, 28), device="meta")).kernel == "reference"


def on_cuda(dtype=torch.bfloat16, dim=32):
    """Looks like queries on CUDA; there is none here."""
    return SimpleNamespace(is_meta=False, is_cuda=True, dtype=dtype, shape=(1, 2, 784, dim))


def test_auto_takes_triton_on_cuda_unless_it_cannot(monkeypatch, deterministic):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    _, bias = of((28, 28), (28, 28))
    assert choose.choose("auto", on_cuda(), bias).kernel == "triton"
    for q, says in ((on_cuda(dim=24), "needs heads of 16"), (on_cuda(torch.float64), "these are float64")):
        choice = choose.choose("auto", q, bias)
        assert choice.kernel == "dense" and says in choice.reason
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert choose.choose("auto", on_cuda(dim=24), bias).kernel == "reference"
    deterministic()
    choice = choose.choose("auto", on_cuda(), bias)
    assert choice.kernel == "reference" and "determinism" in choice.reason


def test_it_falls_back_with_one_line(caplog, monkeypatch):
    """Queries that aren't a mesh, twice."""
    monkeypatch.setattr(choose, "SCORES", 2**18)
    q, k, v, table, points, queries = example(map_size=(32, 32), keys=(16, 16), batch=1, dtype=torch.float32)
    queries[3, 3] += 0.1
    bias = BiasTable(table, points, queries, bilinear.grid_sample, "auto")
    with caplog.at_level(logging.INFO), choose.watched() as used:
        for _ in range(2):
            attend(q, k, v, bias)
    (line,) = [r.getMessage() for r in caplog.records if "deformable attention" in r.getMessage()]
    assert line.startswith("deformable attention by reference: ") and "\n" not in line
    assert used == {"reference"}
    with pytest.raises(ValueError, match="aren't all at the same y or x"):
        attend(q, k, v, bias._replace(kernel="fused"))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["deformable_kernel=fastest"],
            "deformable_kernel is 'fastest'; it must be one of auto, reference, dense, fused",
        ),
        (["deformable_kernel=triton", "trainer.accelerator=cpu"], "triton, which needs CUDA"),
        (["deformable_kernel=fused", "compile=true"], "is fused, but torch.compile can't trace fused; choose auto"),
        (
            ["deformable_kernel=dense", "compile=true"],
            "is dense, but torch.compile decides itself what is kept; choose",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_a_run(overrides, says):
    with pytest.raises(ValueError, match=says) as caught:
        check(load_config(*overrides))
    assert "\n" not in str(caught.value)


def test_triton_in_a_deterministic_run_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match="sums gradients in no fixed order"):
        choose.check_run("triton", accelerator="auto", deterministic=True, compiled=False)


def test_triton_without_cuda_is_refused_where_it_is_used():
    q, k, v, table, points, queries = example(map_size=(3, 3), keys=(2, 2), dim=16, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"triton, which needs CUDA, and these are on cpu; choose auto"):
        attend(q, k, v, BiasTable(table, points, queries, bilinear.grid_sample, "triton"))
