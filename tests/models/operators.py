"""Made-up arguments of deformable attention, and its results by an implementation."""

from fractions import Fraction

import torch

from src.models import bilinear
from src.models.deformable_op import BiasTable, deformable_attention
from src.models.reference_grid import AlignedGrid, PublishedGrid, ShiftedGrid

GRIDS = {"published": PublishedGrid(), "aligned": AlignedGrid(), "shifted": ShiftedGrid()}
NAMES = ("output", "q", "k", "v", "table", "points")
NEAR = 1e-3  # of a cell: points are at least so far from where the table's slope jumps


def mesh(grid, map_size):
    """Positions of queries in float64: a grid's own are float32, fractions of small numbers rounded."""
    rounded = GRIDS[grid].queries(map_size, torch.device("cpu"))
    axes = [torch.linspace(*ends, n, dtype=torch.float64) for ends, n in zip(_ends(rounded), map_size, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def _ends(mesh):
    ends = mesh[[0, -1], 0, 0].tolist(), mesh[0, [0, -1], 1].tolist()
    return [[float(Fraction(end).limit_denominator(1000)) for end in pair] for pair in ends]


def example(
    *,
    map_size,
    keys,
    table_size=None,
    grid="published",
    batch=2,
    groups=2,
    heads_of_group=2,
    dim=4,
    far=1.0,
    seed=0,
    dtype=torch.float64,
    device="cpu",
):
    """q, k, v, table, points, all with gradients, and queries. Points are within `far` maps of the middle."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    heads, queries = groups * heads_of_group, map_size[0] * map_size[1]
    table_size = table_size or tuple(2 * n - 1 for n in map_size)
    positions = mesh(grid, map_size)
    points = (2 * torch.rand(batch, groups, *keys, 2, generator=generator, dtype=torch.float64) - 1) * far
    points = _off_borders(points, positions, table_size)
    q, k, v = (normal(batch, heads, n, dim) for n in (queries, keys[0] * keys[1], keys[0] * keys[1]))
    made = [t.to(device, dtype).requires_grad_() for t in (q, k, v, normal(heads, *table_size), points)]
    return *made, positions.to(device, dtype)


def _off_borders(points, queries, table_size):
    """Points moved, where some query would read the table by them within NEAR of a cell's border."""
    for axis, positions in enumerate((queries[:, 0, 0], queries[0, :, 1])):
        cells = (table_size[axis] - 1) / 4
        for _ in range(50):
            cell = (positions - points[..., axis, None]) * cells + 2 * cells
            near = ((cell - cell.round()).abs() < NEAR).any(-1)
            points[..., axis] += near * 2.3 * NEAR / max(cells, 1)
        assert not near.any()
    return points


def results(kernel, arguments, *, to_output=None, read=bilinear.grid_sample):
    """Output and gradients, by names."""
    q, k, v, table, points, queries = arguments
    output = deformable_attention(q, k, v, BiasTable(table, points, queries, read, kernel))
    if to_output is None:
        to_output = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = torch.autograd.grad(output, arguments[:5], to_output.to(output))
    return dict(zip(NAMES, (output.detach(), *gradients), strict=True))


def error(found, expected):
    """The largest difference in units of the largest expected number."""
    expected = expected.double()
    return ((found.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-12)).item()
