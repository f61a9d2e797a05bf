"""Attention block by block, in PyTorch alone: nothing of the size queries x keys is kept for the gradient.

A block is as large as fits a processor's cache. Its scores are computed once more in the backward pass. All sums are
made in a fixed order, so that equal inputs give equal gradients.
"""

import itertools
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from src.models.deformable_op.bias_table import BiasTable
from src.models.deformable_op.cells import axes
from src.models.deformable_op.scratch import Scratch
from src.models.deformable_op.stencil import Block, Interpolation, Table
from src.models.softmax_attention import as_multiplied

SCORES = 2**20  # of a block: 4 MiB in float32


def attend(q: Tensor, k: Tensor, v: Tensor, bias: BiasTable) -> Tensor:
    """As `deformable_attention`.

    Raises:
        IrregularQueries: the queries aren't a mesh.
    """
    return _Attention.apply(*as_multiplied(q, k, v), bias.table, bias.points, bias.queries)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, table: Tensor, points: Tensor, queries: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v, table, points, queries)
        with _without_autocast(q):
            work = _Blocks(q, k, table, points, queries)
            out = v.new_empty(*q.shape[:-1], v.shape[-1])
            for block in work:
                attention, _ = work.attention(block)
                work.set(out, block, _product(attention, work.keys(v, block)))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, table, points, queries = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        with _without_autocast(q):
            work = _Blocks(q, k, table, points, queries)
            to_q, to_k, to_v = torch.empty_like(q), _zeros(k), _zeros(v)
            to_table = torch.zeros_like(work.table.cells) if ctx.needs_input_grad[3] else None
            to_shifts = work.no_shifts() if ctx.needs_input_grad[4] else None
            for block in work:
                attention, bias = work.attention(block)
                given = work.queries(out, block)
                work.add(to_v, block, _product(attention.mT, given))
                scores = work.scratch.take("scores", *attention.shape)
                _product(given, work.keys(v, block).mT, out=scores)
                torch.ops.aten._softmax_backward_data.out(scores, attention, -1, scores.dtype, grad_input=scores)
                work.set(to_q, block, _product(scores, work.keys(k, block)).mul_(scale))
                work.add(to_k, block, _product(scores.mT, work.queries(q, block)).mul_(scale))
                if to_table is not None or to_shifts is not None:
                    bias.add_gradient(work.like_bias(scores, block), to_table, to_shifts)
        return (
            to_q,
            to_k.to(k.dtype),
            to_v.to(v.dtype),
            None if to_table is None else work.table.crop(to_table).to(table.dtype),
            None if to_shifts is None else work.to_points(to_shifts).to(points.dtype),
            None,
        )


class _Blocks:
    """The blocks of the scores, what of the tensors belongs to each, and its attention weights."""

    def __init__(self, q: Tensor, k: Tensor, table: Tensor, points: Tensor, queries: Tensor):
        dtype = torch.promote_types(q.dtype, points.dtype)  # of scores and bias
        self.q, self.k, self.points_shape = q, k, points.shape
        self.map_size = (queries.shape[0], queries.shape[1])
        self.groups = points.shape[1]
        self.axes = axes(table, points.to(dtype), queries)
        self.table = Table.of(table.to(dtype), self.groups, self.axes)
        self.scratch = Scratch(dtype, q.device)
        self._last: Interpolation | None = None

    def __iter__(self) -> Iterator[Block]:
        """Whole images, or groups, or heads, or rows of the map: the first of these that isn't too large."""
        (images, heads), (height, width), keys = self.q.shape[:2], self.map_size, self.k.shape[2]
        of_group, of_head = heads // self.groups, height * width * keys
        sizes = (images, self.groups, of_group, height)
        of_one = (heads * of_head, of_group * of_head, of_head, width * keys)
        level = next((i for i, scores in enumerate(of_one[:3]) if scores <= SCORES), 3)
        most = [1] * level + [max(SCORES // of_one[level], 1)] + list(sizes[level + 1 :])
        most[3] = max(most[3], FEWEST_ROWS)
        by_images, by_groups, by_heads, by_rows = (_even(n, part) for n, part in zip(sizes, most, strict=True))
        # Heads innermost: they share where their keys are.
        for part, group, rows, head in itertools.product(by_images, by_groups, by_rows, by_heads):
            yield Block(_slice(part), _slice(group), _slice(head), rows)

    def attention(self, block: Block) -> tuple[Tensor, Interpolation]:
        """Weights (n, queries, K), n for images, groups and heads; and where their bias is from."""
        if self._last is None or not self._last.serves(block):
            self._last = Interpolation(block, self.table, self.axes, self.scratch)
        scores = self._last.bias().flatten(3, 4).flatten(0, 2)
        q, k, scale = self.queries(self.q, block), self.keys(self.k, block), self.q.shape[-1] ** -0.5
        if q.dtype == scores.dtype:
            torch.baddbmm(scores, q, k.mT, alpha=scale, out=scores)
        else:
            scores += (q * scale) @ k.mT
        return torch.softmax(scores, -1, out=scores), self._last

    def keys(self, t: Tensor, block: Block) -> Tensor:
        """The block's part of (B, heads, K, d), as (n, K, d)."""
        return t.unflatten(1, (self.groups, -1))[block[:3]].flatten(0, 2)

    def queries(self, t: Tensor, block: Block) -> Tensor:
        """The block's part of (B, heads, H * W, d), as (n, queries, d)."""
        return t.unflatten(1, (self.groups, -1))[self._rows(block)].flatten(0, 2)

    def set(self, t: Tensor, block: Block, part: Tensor) -> None:
        target = t.unflatten(1, (self.groups, -1))[self._rows(block)]
        target.copy_(part.view(target.shape))

    def add(self, t: Tensor, block: Block, part: Tensor) -> None:
        target = t.unflatten(1, (self.groups, -1))[block[:3]]
        target += part.view(target.shape)

    def like_bias(self, scores: Tensor, block: Block) -> Tensor:
        """(n, queries, K) as (images, groups, heads, rows, W, K)."""
        of_block = [part.stop - part.start for part in block[:3]]
        return scores.view(*of_block, len(block.rows), self.map_size[1], -1)

    def no_shifts(self) -> tuple[Tensor, Tensor]:
        """Zeros, to add the gradient of the keys' shifts along y and x up in."""
        y, x = self.axes
        return torch.zeros_like(y.rest), torch.zeros_like(x.rest)

    def to_points(self, shifts: tuple[Tensor, ...]) -> Tensor:
        """The gradient of points (B, G, Hk, Wk, yx) from that of their shifts along y and x."""
        moved = [shift * -axis.cells_per_position for shift, axis in zip(shifts, self.axes, strict=True)]
        return torch.stack(moved, dim=-1).view(self.points_shape)

    def _rows(self, block: Block) -> tuple[slice, ...]:
        width = self.map_size[1]
        return *block[:3], slice(block.rows.start * width, block.rows.stop * width)


FEWEST_ROWS = 6  # two rows of cells more than rows of queries are looked up


def _even(n: int, most: int) -> list[range]:
    """Parts of `range(n)`, as few as possible, none longer than `most`, and about as long as each other."""
    parts = math.ceil(n / most)
    ends = [n * i // parts for i in range(parts + 1)]
    return [range(start, stop) for start, stop in itertools.pairwise(ends)]


def _slice(part: range) -> slice:
    return slice(part.start, part.stop)


def _product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a @ b, in the narrower type of the two as under autocast."""
    if out is not None and out.dtype != a.dtype:
        return out.copy_(a @ b)
    narrow = min(a.dtype, b.dtype, key=lambda dtype: torch.finfo(dtype).bits)
    return torch.bmm(a.to(narrow), b.to(narrow), out=out)


def _zeros(t: Tensor) -> Tensor:
    """To add up in: at least float32."""
    return torch.zeros_like(t, dtype=torch.promote_types(t.dtype, torch.float32))


def _without_autocast(t: Tensor) -> AbstractContextManager[Any]:
    device = t.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
