"""Attention that reads a prefix once for all the rows that begin with it, on a CPU.

A class asks one philosopher, so most of what attention reads is the same persona in every row. Its scores are
one matrix product for all rows; each row's own columns follow, and one softmax spans both (the idea of
Hydragen, Juravsky et al. 2024, without its second pass).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "snb_shared"
"""Of this attention among those of transformers."""


@dataclass(frozen=True, eq=False)
class Prefix:
    """Keys and values of tokens that requests begin with, each `[layers, kv_heads, tokens, head_dim]`."""

    ids: tuple[int, ...]
    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class Sharing:
    """Which rows of one forward pass begin with which prefix."""

    groups: tuple[tuple[Prefix, list[int]], ...]
    own: Tensor
    """Int64 `[n]`, the column after each row's prefix."""

    @classmethod
    def of(cls, prefixes: Sequence[Prefix]) -> "Sharing":
        """From the prefix of each row."""
        groups: dict[Prefix, list[int]] = {}
        for row, prefix in enumerate(prefixes):
            groups.setdefault(prefix, []).append(row)
        return cls(tuple(groups.items()), torch.tensor([len(prefix.ids) for prefix in prefixes]))

    @property
    def first(self) -> int:
        """The column from which rows have to be read at all."""
        return int(self.own.min())

    @property
    def longest(self) -> int:
        """Tokens of the longest prefix."""
        return int(self.own.max())


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    sharing: Sharing | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """As `sdpa`, and with `sharing` over prefixes and own columns together.

    Args:
        module: the layer's attention.
        query: `[n, heads, tokens, head_dim]`.
        key: own columns from `sharing.first` on, `[n, kv_heads, columns, head_dim]`.
        value: as `key`.
        attention_mask: what is added to the scores of own columns, `[n, 1, tokens, columns]`.
        sharing: without it this is sdpa.
        options: `scaling` of the scores, and what sdpa takes.

    Returns:
        `[n, tokens, heads, head_dim]`, and no weights.
    """
    if sharing is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return plain
    rows, heads, tokens, width = query.shape
    layer, kv_heads = int(module.layer_idx), key.shape[1]  # type: ignore[arg-type]
    # The heads that share keys count as more queries; their keys are not repeated.
    grouped = (query * options["scaling"]).reshape(rows, kv_heads, -1, width)
    own = grouped @ key.transpose(-1, -2)
    scores = torch.full((*own.shape[:-1], sharing.longest + own.shape[-1]), -torch.inf, dtype=own.dtype)
    assert attention_mask is not None
    masked = own.view(rows, kv_heads, -1, tokens, own.shape[-1]) + attention_mask[:, :, None]
    scores[..., sharing.longest :] = masked.flatten(2, 3)
    for prefix, members in sharing.groups:
        keys = prefix.keys[layer].transpose(-1, -2)
        scores[members, ..., : len(prefix.ids)] = _at_once(grouped[members], keys)
    weights = scores.float().softmax(-1).to(query.dtype)
    result = weights[..., sharing.longest :] @ value
    for prefix, members in sharing.groups:
        result[members] += _at_once(weights[members, ..., : len(prefix.ids)], prefix.values[layer])
    return result.reshape(rows, heads, tokens, width).transpose(1, 2).contiguous(), None


def _at_once(rows: Tensor, shared: Tensor) -> Tensor:
    """`rows @ shared`, `[n, kv_heads, q, a] @ [kv_heads, a, b]`, as one product a head for all rows."""
    number, kv_heads, queries, _ = rows.shape
    product: Tensor = rows.transpose(0, 1).flatten(1, 2) @ shared
    return product.view(kv_heads, number, queries, -1).transpose(0, 1)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
