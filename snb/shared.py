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

    groups: tuple[tuple[Prefix, list[int] | slice], ...]
    """Each prefix with its rows; all of them as a slice, which is read without a copy."""
    own: Tensor
    """Int64 `[n]`, the column after each row's prefix."""

    @classmethod
    def of(cls, prefixes: Sequence[Prefix]) -> "Sharing":
        """From the prefix of each row."""
        groups: dict[Prefix, list[int]] = {}
        for row, prefix in enumerate(prefixes):
            groups.setdefault(prefix, []).append(row)
        own = torch.tensor([len(prefix.ids) for prefix in prefixes])
        if len(groups) == 1:
            return cls(((prefixes[0], slice(None)),), own)
        return cls(tuple(groups.items()), own)

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
    assert attention_mask is not None
    rows, heads, tokens, width = query.shape
    layer, kv_heads = int(module.layer_idx), key.shape[1]  # type: ignore[arg-type]
    # The heads that share keys count as more queries; their keys are not repeated.
    grouped = (query * options["scaling"]).reshape(rows, kv_heads, -1, width)
    own = (grouped @ key.transpose(-1, -2)).view(rows, kv_heads, -1, tokens, key.shape[2])
    own = (own + attention_mask[:, :, None]).flatten(2, 3).transpose(0, 1)
    # From here on heads come before rows, so that a head's rows are one matrix.
    scores = own.new_full((*own.shape[:-1], sharing.longest + own.shape[-1]), -torch.inf)
    scores[..., sharing.longest :] = own
    queries = grouped.transpose(0, 1)
    for prefix, members in sharing.groups:
        keys = prefix.keys[layer].transpose(-1, -2)
        scores[:, members, :, : len(prefix.ids)] = _at_once(queries[:, members], keys)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    result = (weights[..., sharing.longest :].transpose(0, 1) @ value).transpose(0, 1)
    for prefix, members in sharing.groups:
        result[:, members] += _at_once(weights[:, members, :, : len(prefix.ids)], prefix.values[layer])
    return result.transpose(0, 1).reshape(rows, heads, tokens, width).transpose(1, 2).contiguous(), None


def _at_once(rows: Tensor, shared: Tensor) -> Tensor:
    """`rows @ shared`, `[kv_heads, n, q, a] @ [kv_heads, a, b]`, as one product a head for all rows."""
    product: Tensor = rows.flatten(1, 2) @ shared
    return product.view(*rows.shape[:3], -1)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
