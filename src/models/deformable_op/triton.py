"""Attention on CUDA in one pass, forward and backward, without a tensor of the size queries x keys (Triton).

As in FlashAttention (Dao et al. 2022), softmax is kept up to date over blocks of keys, and only its logarithm is kept
for the gradient; the bias is read from the table for each block, four cells for each query and key. The gradient's
kernel goes over blocks of keys; it adds to the gradients of queries and of the table from many blocks at once, in no
fixed order. Products are in the type of q, k and v, everything else in float32.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from src.models.deformable_op.bias_table import BiasTable

COPIES = 32  # of the table's gradient at most, so that fewer blocks add to the same cell at the same time


def attend(q: Tensor, k: Tensor, v: Tensor, bias: BiasTable) -> Tensor:
    """As `deformable_attention`, for float32, bfloat16 and float16. Queries lie on a mesh, of any steps."""
    device = q.device.type
    if torch.is_autocast_enabled(device):
        q, k, v = (t.to(torch.get_autocast_dtype(device)) for t in (q, k, v))
    out, _ = _forward(q, k, v, bias.table, bias.points, bias.queries)
    return out


# Operators of torch's, so that torch.compile takes each as a whole.


@torch.library.custom_op("datlab::deformable_attention", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor, table: Tensor, points: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Also the logarithm of softmax's denominator, (B, heads, H * W)."""
    q, k, v = (t.contiguous() for t in (q, k, v))
    out = torch.empty_like(q)
    denominator = q.new_empty(q.shape[:3], dtype=torch.float32)
    sizes = _Sizes(q, k, table, points, queries)
    _forward_kernel[(triton.cdiv(sizes.queries, sizes.side), sizes.heads)](
        q, k, v, *sizes.positions, out, denominator, **sizes.arguments
    )
    return out, denominator


@torch.library.custom_op("datlab::deformable_attention_backward", mutates_args=())
def _backward(
    to_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    points: Tensor,
    queries: Tensor,
    out: Tensor,
    denominator: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k, v, table and points."""
    to_out, q, k, v = (t.contiguous() for t in (to_out, q, k, v))
    sizes = _Sizes(q, k, table, points, queries)
    mean = (to_out.float() * out.float()).sum(-1)  # of the weights' gradient under the weights
    to_q = torch.zeros_like(q, dtype=torch.float32)
    to_k, to_v = torch.empty_like(k), torch.empty_like(v)
    copies = min(COPIES, len(q))
    to_table = torch.zeros(copies, *table.shape, dtype=torch.float32, device=q.device)
    to_shift = torch.empty(2, *q.shape[:2], k.shape[2], dtype=torch.float32, device=q.device)
    _backward_kernel[(triton.cdiv(sizes.keys, sizes.side), sizes.heads)](
        q,
        k,
        v,
        *sizes.positions,
        to_out,
        denominator,
        mean,
        to_q,
        to_k,
        to_v,
        to_table,
        *to_shift,
        COPIES=copies,
        **sizes.arguments,
    )
    of_groups = to_shift.unflatten(2, (points.shape[1], -1)).sum(3)  # heads of a group share its points
    per_position = of_groups.new_tensor([(n - 1) / 4 for n in table.shape[1:]])
    to_points = (of_groups.movedim(0, -1) * per_position).view(points.shape)
    return to_q.to(q.dtype), to_k, to_v, to_table.sum(0).to(table.dtype), to_points.to(points.dtype)


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, table: Tensor, points: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=torch.float32)


@_backward.register_fake
def _(
    to_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    points: Tensor,
    queries: Tensor,
    out: Tensor,
    denominator: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    q, k, v, table, points = (t.new_empty(t.shape) for t in (q, k, v, table, points))
    return q, k, v, table, points


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, to_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_backward(to_out, *ctx.saved_tensors), None


_forward.register_autograd(_gradients, setup_context=_keep)


class _Sizes:
    """What the kernels are told beside q, k and v.

    Attributes:
        side: queries, and keys, of a block.
        positions: the table in float32; y and x of the queries, and of the keys of each group, in cells of the table:
            query less key is the cell that they read.
    """

    def __init__(self, q: Tensor, k: Tensor, table: Tensor, points: Tensor, queries: Tensor):
        heads, self.queries, dim = q.shape[1:]
        # Blocks of float32 are smaller: theirs are other, larger instructions, and registers are few.
        self.side = 64 if q.element_size() == 2 and dim <= 64 else 32
        self.heads, self.keys = len(q) * heads, k.shape[2]
        height, width = table.shape[1:]
        at, moved = [], []
        axes = ((height, queries[:, 0, 0]), (width, queries[0, :, 1]))
        for i, (size, positions) in enumerate(axes):
            at.append((positions.float() * ((size - 1) / 4) + (size - 1) / 2).contiguous())
            moved.append((points[..., i].float() * ((size - 1) / 4)).contiguous())
        self.positions = (table.float().contiguous(), *at, *moved)
        self.arguments = {
            "scale": dim**-0.5,
            "heads": heads,
            "heads_of_group": heads // points.shape[1],
            "queries": self.queries,
            "keys": self.keys,
            "map_width": queries.shape[1],
            "table_height": height,
            "table_width": width,
            "DIM": dim,
            "QUERIES": self.side,
            "KEYS": self.side,
            "PRECISION": "interpreted" if not q.is_cuda else _precision(),
        }


def _precision() -> str:
    """Products of float32: as exact as torch's own are asked to be."""
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"


@triton.jit
def _product(a, b, PRECISION: tl.constexpr):
    """a @ b in float32."""
    if PRECISION == "interpreted":  # the interpreter takes the bits of bfloat16 for whole numbers
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:
        return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def _on_table(y, x, table_height, table_width, there):
    return there & (y >= 0) & (y < table_height) & (x >= 0) & (x < table_width)


@triton.jit
def _cell(table, y, x, table_height, table_width, there):
    """Of the table; zero outside of it."""
    return tl.load(table + y * table_width + x, mask=_on_table(y, x, table_height, table_width, there), other=0.0)


@triton.jit
def _read(table, y, x, table_height, table_width, there):
    """The table between its cells, and its slopes along y and x."""
    top, left = tl.floor(y), tl.floor(x)
    down, right = y - top, x - left
    row, column = top.to(tl.int32), left.to(tl.int32)
    upper_left = _cell(table, row, column, table_height, table_width, there)
    upper_right = _cell(table, row, column + 1, table_height, table_width, there)
    lower_left = _cell(table, row + 1, column, table_height, table_width, there)
    lower_right = _cell(table, row + 1, column + 1, table_height, table_width, there)
    upper = upper_left + right * (upper_right - upper_left)
    lower = lower_left + right * (lower_right - lower_left)
    slope = upper_right - upper_left
    return upper + down * (lower - upper), lower - upper, slope + down * (lower_right - lower_left - slope)


@triton.jit
def _add_to_cell(table, y, x, value, table_height, table_width, there):
    on = _on_table(y, x, table_height, table_width, there)
    tl.atomic_add(table + y * table_width + x, value, mask=on, sem="relaxed")


@triton.jit
def _add(table, y, x, value, table_height, table_width, there):
    """The reverse of `_read`: shares of the value to four cells."""
    top, left = tl.floor(y), tl.floor(x)
    down, right = y - top, x - left
    row, column = top.to(tl.int32), left.to(tl.int32)
    upper, lower = value * (1 - down), value * down
    _add_to_cell(table, row, column, upper * (1 - right), table_height, table_width, there)
    _add_to_cell(table, row, column + 1, upper * right, table_height, table_width, there)
    _add_to_cell(table, row + 1, column, lower * (1 - right), table_height, table_width, there)
    _add_to_cell(table, row + 1, column + 1, lower * right, table_height, table_width, there)


@triton.jit
def _forward_kernel(
    q,
    k,
    v,
    table,
    query_y,
    query_x,
    key_y,
    key_x,
    out,
    denominator,
    scale,
    heads,
    heads_of_group,
    queries,
    keys,
    map_width,
    table_height,
    table_width,
    DIM: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A block of queries of one head of one image, over all blocks of keys."""
    row = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    head = tl.program_id(1).to(tl.int64)  # of all images
    channel = tl.arange(0, DIM)
    is_query = row < queries
    table += (head % heads) * table_height * table_width
    group = head // heads_of_group
    at = head * queries * DIM + row[:, None] * DIM + channel[None, :]
    q_block = tl.load(q + at, mask=is_query[:, None], other=0.0)
    y_of_query = tl.load(query_y + row // map_width, mask=is_query, other=0.0)
    x_of_query = tl.load(query_x + row % map_width, mask=is_query, other=0.0)

    largest = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    sums = tl.zeros([QUERIES, DIM], tl.float32)
    for start in range(0, keys, KEYS):
        column = start + tl.arange(0, KEYS)
        is_key = column < keys
        of_key = head * keys * DIM + column[:, None] * DIM + channel[None, :]
        k_block = tl.load(k + of_key, mask=is_key[:, None], other=0.0)
        v_block = tl.load(v + of_key, mask=is_key[:, None], other=0.0)
        y = y_of_query[:, None] - tl.load(key_y + group * keys + column, mask=is_key, other=0.0)[None, :]
        x = x_of_query[:, None] - tl.load(key_x + group * keys + column, mask=is_key, other=0.0)[None, :]
        there = is_query[:, None] & is_key[None, :]
        bias, _, _ = _read(table, y, x, table_height, table_width, there)

        scores = _product(q_block, tl.trans(k_block), PRECISION) * scale
        scores += bias
        scores = tl.where(is_key[None, :], scores, float("-inf"))
        higher = tl.maximum(largest, tl.max(scores, 1))
        kept = tl.exp(largest - higher)
        weights = tl.exp(scores - higher[:, None])
        total = total * kept + tl.sum(weights, 1)
        sums = sums * kept[:, None]
        sums += _product(weights.to(v_block.dtype), v_block, PRECISION)
        largest = higher
    tl.store(out + at, (sums / total[:, None]).to(out.dtype.element_ty), mask=is_query[:, None])
    tl.store(denominator + head * queries + row, largest + tl.log(total), mask=is_query)


@triton.jit
def _backward_kernel(
    q,
    k,
    v,
    table,
    query_y,
    query_x,
    key_y,
    key_x,
    to_out,
    denominator,
    mean,
    to_q,
    to_k,
    to_v,
    to_table,
    to_y,
    to_x,
    scale,
    heads,
    heads_of_group,
    queries,
    keys,
    map_width,
    table_height,
    table_width,
    DIM: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
    COPIES: tl.constexpr,
):
    """A block of keys of one head of one image, over all blocks of queries."""
    column = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    head = tl.program_id(1).to(tl.int64)  # of all images
    channel = tl.arange(0, DIM)
    is_key = column < keys
    cells = table_height * table_width
    table += (head % heads) * cells
    to_table += ((head // heads) % COPIES * heads + head % heads) * cells
    group = head // heads_of_group
    of_key = head * keys * DIM + column[:, None] * DIM + channel[None, :]
    k_block = tl.load(k + of_key, mask=is_key[:, None], other=0.0)
    v_block = tl.load(v + of_key, mask=is_key[:, None], other=0.0)
    y_of_key = tl.load(key_y + group * keys + column, mask=is_key, other=0.0)
    x_of_key = tl.load(key_x + group * keys + column, mask=is_key, other=0.0)

    to_k_block = tl.zeros([KEYS, DIM], tl.float32)
    to_v_block = tl.zeros([KEYS, DIM], tl.float32)
    to_y_block = tl.zeros([KEYS], tl.float32)
    to_x_block = tl.zeros([KEYS], tl.float32)
    for start in range(0, queries, QUERIES):
        row = start + tl.arange(0, QUERIES)
        is_query = row < queries
        at = head * queries * DIM + row[:, None] * DIM + channel[None, :]
        q_block = tl.load(q + at, mask=is_query[:, None], other=0.0)
        given = tl.load(to_out + at, mask=is_query[:, None], other=0.0)
        denominator_block = tl.load(denominator + head * queries + row, mask=is_query, other=0.0)
        mean_block = tl.load(mean + head * queries + row, mask=is_query, other=0.0)
        y = tl.load(query_y + row // map_width, mask=is_query, other=0.0)[:, None] - y_of_key[None, :]
        x = tl.load(query_x + row % map_width, mask=is_query, other=0.0)[:, None] - x_of_key[None, :]
        there = is_query[:, None] & is_key[None, :]
        bias, slope_y, slope_x = _read(table, y, x, table_height, table_width, there)

        scores = _product(q_block, tl.trans(k_block), PRECISION) * scale
        scores += bias
        weights = tl.where(there, tl.exp(scores - denominator_block[:, None]), 0.0)
        to_v_block += _product(tl.trans(weights.to(given.dtype)), given, PRECISION)
        to_weights = _product(given, tl.trans(v_block), PRECISION)
        to_scores = weights * (to_weights - mean_block[:, None])
        narrow = to_scores.to(q_block.dtype)
        to_k_block += _product(tl.trans(narrow), q_block, PRECISION) * scale
        to_q_block = _product(narrow, k_block, PRECISION) * scale
        tl.atomic_add(to_q + at, to_q_block, mask=is_query[:, None], sem="relaxed")

        # A key that moves down reads a cell further up: minus the slope.
        to_y_block -= tl.sum(to_scores * slope_y, 0)
        to_x_block -= tl.sum(to_scores * slope_x, 0)
        _add(to_table, y, x, to_scores, table_height, table_width, there)
    tl.store(to_k + of_key, to_k_block.to(to_k.dtype.element_ty), mask=is_key[:, None])
    tl.store(to_v + of_key, to_v_block.to(to_v.dtype.element_ty), mask=is_key[:, None])
    tl.store(to_y + head * keys + column, to_y_block, mask=is_key)
    tl.store(to_x + head * keys + column, to_x_block, mask=is_key)
