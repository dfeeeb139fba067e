"""Attention that reads a prefix once for all the rows that begin with it, on a CPU.

A class asks one philosopher, so most of what attention reads is the same persona in every row. The queries of
all rows attend to it at once, then each row attends to its own columns, and the two results are combined by
their softmax sums (Hydragen, Juravsky et al., 2024).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Prefix:
    """Keys and values of tokens that requests begin with, each `[layers, kv_heads, tokens, head_dim]`."""

    ids: tuple[int, ...]
    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class Sharing:
    """Which rows of one forward pass begin with which prefix."""

    groups: tuple[tuple[Prefix, list[int] | slice], ...]
    """Each prefix with its rows; if these are all rows, a slice, which is read without a copy."""
    own: Tensor
    """Int64 `[n]`, the column after each row's prefix."""

    @classmethod
    def of(cls, prefixes: Sequence[Prefix]) -> "Sharing":
        """Groups rows by the prefix of each."""
        groups: dict[Prefix, list[int]] = {}
        for row, prefix in enumerate(prefixes):
            groups.setdefault(prefix, []).append(row)
        own = torch.tensor([len(prefix.ids) for prefix in prefixes])
        if len(groups) == 1:
            return cls(((prefixes[0], slice(None)),), own)
        return cls(tuple(groups.items()), own)

    @property
    def first(self) -> int:
        """The first column that any row has to itself."""
        return int(self.own.min())


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, sharing: Sharing, layer: int
) -> Tensor:
    """Attention over shared prefixes and own columns together.

    Args:
        query: `[n, heads, tokens, head_dim]`.
        key: own columns from `sharing.first` on, `[n, kv_heads, columns, head_dim]`.
        value: as `key`.
        mask: added to the scores of own columns, `[n, 1, heads / kv_heads * tokens, columns]`.
        sharing: which rows begin with which prefix.
        layer: the layer's number.

    Returns:
        As `query`.
    """
    # The heads that share keys count as more queries; their keys are not repeated.
    grouped = query.reshape(len(query), key.shape[1], -1, query.shape[-1])
    result, own_sum = _attend(grouped, key, value, mask)
    for prefix, members in sharing.groups:
        shared, shared_sum = _attend_at_once(grouped[members], prefix.keys[layer], prefix.values[layer])
        share = (shared_sum - own_sum[members]).sigmoid()[..., None].to(query.dtype)
        result[members] = result[members].lerp(shared, share)
    return result.reshape(query.shape)


def _attend_at_once(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """As `_attend`, with keys and values, `[kv_heads, columns, head_dim]`, that all rows share."""
    rows, _, number, _ = queries.shape
    result, log_sum = _attend(queries.transpose(0, 1).flatten(1, 2)[None], keys[None], values[None])
    apart = -1, rows, number
    return result.view(*apart, result.shape[-1]).transpose(0, 1), log_sum.reshape(apart).transpose(0, 1)


def _attend(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attention, `[n, kv_heads, q, head_dim]`, and the log of its softmax's sum, fp32 `[n, kv_heads, q]`.

    sdpa runs this kernel on a CPU, but does not return its second result.
    """
    result, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        queries, keys, values, attn_mask=mask
    )
    return result, log_sum
