"""Triton kernels of a decode step: what PyTorch does between its matrix products, in six launches a layer.

Beside each function is its plain form in PyTorch, which says what it computes; tests compare the two, in
Triton's interpreter on a CPU and compiled on a GPU. A program computes one row, or part of one, from that row
alone, so a row gives the same bits whatever runs beside it. Sums are in fp32.

Importing this needs Triton, which comes with PyTorch's builds for a GPU.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
from torch import Tensor
from torch.nn import functional
from triton import language as tl

from snb.engine import decoder

KEYS, MOST_SPLITS = 64, 32
"""Columns that a program of attention reads at once, and the most programs that split one row's columns."""
SHORTEST = 128
"""Fewest columns of one program; computed: 768 columns of one row then keep 48 programs busy."""
TILE = 16
"""Fewest rows of a matrix that tensor cores multiply; heads that share keys fill the first of them."""
BLOCK = 1024
"""Elements of one program, where they do not depend on each other."""
UNFUSED = {"enable_fp_fusion": False}
"""Products are rounded before they are added, as in PyTorch, so that keys are those of its own kernels."""


class Quantised(NamedTuple):
    """Inputs of a product in fp8: what `Rowwise.product` takes."""

    values: Tensor
    """Float8_e4m3fn `[n, 1, width]`."""
    scales: Tensor
    """Fp32 `[n, 1, 1]`."""
    dtype: torch.dtype
    """Dtype of what was quantised, and of the product."""

    def cpu(self) -> Tensor:
        """The dequantised numbers, on the CPU, which the self-test compares."""
        return (self.values.float() * self.scales).to("cpu", self.dtype)


def _place(rows: int, width: int, like: Tensor, fp8: bool) -> Tensor | Quantised:
    """Where a kernel puts its result, `[n, 1, width]`."""
    if not fp8:
        return like.new_empty(rows, 1, width)
    scales = like.new_empty(rows, 1, 1, dtype=torch.float32)
    return Quantised(like.new_empty(rows, 1, width, dtype=torch.float8_e4m3fn), scales, like.dtype)


@triton.jit
def _store(row: tl.tensor, result: tl.tensor, scales: tl.tensor, at: tl.tensor, inside: tl.tensor) -> None:
    """Stores a row; if `scales` are given, quantised as by `rowwise.quantised`."""
    if scales is not None:
        exact = row.to(tl.float32)
        least: tl.constexpr = 2.0**-126  # fp32's least normal number
        scale = tl.maximum(tl.max(tl.abs(exact)) / 448.0, least)
        tl.store(scales + tl.program_id(0), scale)
        tl.store(result + at, (exact / scale).to(result.dtype.element_ty), mask=inside)
    else:
        tl.store(result + at, row, mask=inside)


def add_norm(
    states: Tensor, added: Tensor, weight: Tensor, eps: float, fp8: bool = False
) -> Tensor | Quantised:
    """Adds to the residual stream, in place, and returns its RMSNorm.

    Args:
        states: the residual stream, `[n, 1, hidden]`; contiguous, as are the other tensors.
        added: likewise.
        weight: `[hidden]`.
        eps: of the norm.
        fp8: whether to quantise the result row by row, for a product in fp8.
    """
    rows, _, width = states.shape
    place = _place(rows, width, states, fp8)
    result, scales = place[:2] if isinstance(place, Quantised) else (place, None)
    block = triton.next_power_of_2(width)
    _add_norm[(rows,)](states, added, weight, result, scales, eps, width, block, num_warps=8)
    return place


def plain_add_norm(states: Tensor, added: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As `add_norm`."""
    return functional.rms_norm(states.add_(added), weight.shape, weight, eps)


@triton.jit
def _add_norm(
    states: tl.tensor,
    added: tl.tensor,
    weight: tl.tensor,
    result: tl.tensor,
    scales: tl.tensor,
    eps: float,
    width: tl.constexpr,
    block: tl.constexpr,
) -> None:
    columns = tl.arange(0, block)
    inside = columns < width
    at = tl.program_id(0) * width + columns
    own = tl.load(states + at, mask=inside, other=0)
    own = (own.to(tl.float32) + tl.load(added + at, mask=inside, other=0).to(tl.float32)).to(own.dtype)
    tl.store(states + at, own, mask=inside)
    own = own.to(tl.float32)
    normed = own * tl.rsqrt(tl.sum(own * own) / width + eps)
    normed *= tl.load(weight + columns, mask=inside, other=0).to(tl.float32)
    _store(normed.to(states.dtype.element_ty), result, scales, at, inside)


def rotate_and_store(
    heads: Tensor, angles: Sequence[Tensor], positions: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Rotates queries and keys, and writes keys and values into the cache.

    Args:
        heads: queries, keys and values side by side, `[n, 1, (heads + 2 * kv_heads) * head_dim]`.
        angles: `SlotModel.angle_tables`, each `[columns, head_dim]`.
        positions: int64 `[n, 1]`, the column that each row writes.
        keys: the cache of one layer, `[slots, kv_heads, columns, head_dim]`; row i of `heads` writes row i.
        values: likewise.

    Returns:
        The queries, `[n, heads, 1, head_dim]`.
    """
    kv_heads, columns, head_dim = keys.shape[1:]
    number = heads.shape[-1] // head_dim
    queries = heads.new_empty(len(heads), number - 2 * kv_heads, 1, head_dim)
    sizes = number - 2 * kv_heads, kv_heads, columns, head_dim
    _rotate_and_store[(len(heads), number)](
        heads, *angles, positions, queries, keys, values, *sizes, num_warps=1, **UNFUSED
    )
    return queries


def plain_rotate_and_store(
    heads: Tensor, angles: Sequence[Tensor], positions: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """As `rotate_and_store`."""
    kv_heads, head_dim, rows = keys.shape[1], keys.shape[-1], torch.arange(len(heads), device=heads.device)
    parts = heads.view(len(heads), -1, 1, head_dim)
    turned = decoder.rotated(parts[:, :-kv_heads], [table[positions][:, None] for table in angles])
    keys[rows, :, positions[:, 0]] = turned[:, -kv_heads:, 0]
    values[rows, :, positions[:, 0]] = parts[:, -kv_heads:, 0]
    return turned[:, :-kv_heads]


@triton.jit
def _rotate_and_store(
    mixed: tl.tensor,
    cosines: tl.tensor,
    sines: tl.tensor,
    positions: tl.tensor,
    queries: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    columns: tl.constexpr,
    head_dim: tl.constexpr,
) -> None:
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    position, dims = tl.load(positions + row), tl.arange(0, head_dim)
    start = mixed + (row * (heads + 2 * kv_heads) + head) * head_dim
    own = tl.load(start + dims)
    if head < heads + kv_heads:
        across = tl.load(start + (dims + head_dim // 2) % head_dim).to(tl.float32)
        cosine = tl.load(cosines + position * head_dim + dims).to(tl.float32)
        sine = tl.load(sines + position * head_dim + dims).to(tl.float32)
        kept, moved = (own.to(tl.float32) * cosine).to(own.dtype), (across * sine).to(own.dtype)
        own = (kept.to(tl.float32) + moved.to(tl.float32)).to(own.dtype)
    if head < heads:
        tl.store(queries + (row * heads + head) * head_dim + dims, own)
    elif head < heads + kv_heads:
        tl.store(keys + ((row * kv_heads + head - heads) * columns + position) * head_dim + dims, own)
    else:
        cell = (row * kv_heads + head - heads - kv_heads) * columns + position
        tl.store(values + cell * head_dim + dims, own)


def attend(queries: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
    """Attention of one new token per row, which reads only the columns up to its position.

    The columns are split over programs, whose results are combined by their softmax sums (Flash-Decoding,
    Dao et al., 2023). Where they are split depends on the context alone, never on the other rows. Heads that
    share keys are the rows of one matrix. A row whose position is the last column, which takes the writes of
    padding, reads none and gives zeros.

    Args:
        queries: `[n, heads, 1, head_dim]`.
        keys: the cache of one layer, `[slots, kv_heads, columns, head_dim]`; row i of `queries` reads row i.
        values: likewise.
        positions: int64 `[n, 1]`.

    Returns:
        `[n, 1, heads * head_dim]`.
    """
    (rows, heads, _, head_dim), (kv_heads, columns) = queries.shape, keys.shape[1:3]
    split = max(SHORTEST, triton.next_power_of_2(columns - 1) // MOST_SPLITS)
    splits = triton.cdiv(columns - 1, split)
    parts = torch.empty(rows, heads, splits, head_dim, dtype=torch.float32, device=queries.device)
    sums = parts.new_empty(rows, heads, splits)
    sizes = heads, kv_heads, columns, head_dim, split, splits
    tile = max(TILE, triton.next_power_of_2(heads // kv_heads))
    _attend[(rows, kv_heads, splits)](
        queries, keys, values, positions, parts, sums, *sizes, KEYS, tile, num_stages=2
    )
    result = queries.new_empty(rows, 1, heads * head_dim)
    _combine[(rows, heads)](parts, sums, positions, result, *sizes[2:], triton.next_power_of_2(splits))
    return result


def plain_attend(queries: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
    """As `attend`."""
    result = torch.zeros_like(queries)
    for row, position in enumerate(positions.flatten().tolist()):
        if position < keys.shape[2] - 1:
            read = slice(row, row + 1), slice(None), slice(position + 1)
            result[row] = decoder.attention(queries[row : row + 1], keys[read], values[read], None)
    return result.view(len(queries), 1, -1)


@triton.jit
def _attend(
    queries: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    positions: tl.tensor,
    parts: tl.tensor,
    sums: tl.tensor,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    columns: tl.constexpr,
    head_dim: tl.constexpr,
    split: tl.constexpr,
    splits: tl.constexpr,
    block: tl.constexpr,
    tile: tl.constexpr,
) -> None:
    row, kv_head, number = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    length, first = tl.load(positions + row).to(tl.int32) + 1, number * split
    if (first < length) & (length < columns):
        members, dims, offsets = tl.arange(0, tile), tl.arange(0, head_dim), tl.arange(0, block)
        sharing: tl.constexpr = heads // kv_heads
        head, mine = row * heads + kv_head * sharing + members, members < sharing
        query = tl.load(queries + head[:, None] * head_dim + dims[None, :], mask=mine[:, None], other=0)
        scale: tl.constexpr = head_dim**-0.5 * 1.4426950408889634  # in base 2: log2(e)
        peak, total = tl.full([tile], float("-inf"), tl.float32), tl.zeros([tile], tl.float32)
        mixed = tl.zeros([tile, head_dim], tl.float32)
        for start in range(0, split, block):
            column = first + start + offsets
            inside = column < length
            cells = ((row * kv_heads + kv_head) * columns + column)[:, None] * head_dim + dims[None, :]
            key = tl.load(keys + cells, mask=inside[:, None], other=0)
            scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
            scores = tl.where(inside[None, :], scores, float("-inf"))
            highest = tl.maximum(peak, tl.max(scores, 1))
            weights, shrunk = tl.exp2(scores - highest[:, None]), tl.exp2(peak - highest)
            value = tl.load(values + cells, mask=inside[:, None], other=0)
            added = tl.dot(weights.to(value.dtype), value, input_precision="ieee")
            peak, total, mixed = highest, total * shrunk + tl.sum(weights, 1), mixed * shrunk[:, None] + added
        at = head * splits + number
        tl.store(parts + at[:, None] * head_dim + dims[None, :], mixed / total[:, None], mask=mine[:, None])
        tl.store(sums + at, peak + tl.log2(total), mask=mine)


@triton.jit
def _combine(
    parts: tl.tensor,
    sums: tl.tensor,
    positions: tl.tensor,
    result: tl.tensor,
    columns: tl.constexpr,
    head_dim: tl.constexpr,
    split: tl.constexpr,
    splits: tl.constexpr,
    block: tl.constexpr,
) -> None:
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    length = tl.load(positions + row).to(tl.int32) + 1
    used = tl.where(length < columns, tl.cdiv(length, split), 0)
    numbers, dims = tl.arange(0, block), tl.arange(0, head_dim)
    inside, head = numbers < used, row * tl.num_programs(1) + head
    at = head * splits + numbers
    logs = tl.load(sums + at, mask=inside, other=-1e38)  # not -inf: idle rows would subtract two of them
    weights = tl.where(inside, tl.exp2(logs - tl.max(logs)), 0.0)
    each = tl.load(parts + at[:, None] * head_dim + dims[None, :], mask=inside[:, None], other=0)
    mixed = tl.sum(each * weights[:, None], 0) / tl.maximum(tl.sum(weights), 1.0)  # 1 where none is used
    tl.store(result + head * head_dim + dims, mixed.to(result.dtype.element_ty))


def gated(both: Tensor, fp8: bool = False) -> Tensor | Quantised:
    """silu(gate) · up, from `[n, 1, 2 * width]` with the gates first to `[n, 1, width]`.

    With `fp8` the result is quantised row by row, for which one program has to see a whole row.
    """
    rows, width = len(both), both.shape[-1] // 2
    place = _place(rows, width, both, fp8)
    result, scales = place[:2] if isinstance(place, Quantised) else (place, None)
    block = triton.next_power_of_2(width) if fp8 else BLOCK
    _gated[(rows, triton.cdiv(width, block))](both, result, scales, width, block, num_warps=16 if fp8 else 4)
    return place


def plain_gated(both: Tensor) -> Tensor:
    """As `gated`."""
    gate, up = both.chunk(2, dim=-1)
    return functional.silu(gate) * up


@triton.jit
def _gated(
    both: tl.tensor,
    result: tl.tensor,
    scales: tl.tensor,
    width: tl.constexpr,
    block: tl.constexpr,
) -> None:
    row, columns = tl.program_id(0), tl.program_id(1) * block + tl.arange(0, block)
    inside, at = columns < width, row * 2 * width + columns
    gate = tl.load(both + at, mask=inside, other=0).to(tl.float32)
    up = tl.load(both + at + width, mask=inside, other=0).to(tl.float32)
    mixed = (gate * tl.sigmoid(gate) * up).to(both.dtype.element_ty)
    _store(mixed, result, scales, row * width + columns, inside)
