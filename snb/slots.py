"""The KV cache: one preallocated row for each request, and the model's forward pass over chosen rows."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, Qwen2ForCausalLM


@dataclass(frozen=True)
class Prefix:
    """Keys and values of tokens that requests begin with, each `[layers, kv_heads, tokens, head_dim]`."""

    ids: tuple[int, ...]
    keys: Tensor
    values: Tensor


class SlotCache(Cache):
    """Keys and values, each `[layers, slots, kv_heads, context + 1, head_dim]` in the model's dtype.

    A row belongs to one request at a time, so nothing leaks from one to another: attention to a row stops
    at the row's own position, and whatever a former owner left further on is overwritten before it is read.
    The one column past the context takes the writes of padding, so that padding never touches real tokens.
    """

    def __init__(self, model: Qwen2ForCausalLM, slots: int, context: int) -> None:
        super().__init__(layers=[])
        config = model.config
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, slots, config.num_key_value_heads, context + 1, head_dim)
        self.keys = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self.values = torch.zeros_like(self.keys)
        self.slots, self.context = slots, context
        self._rows: slice | Tensor = slice(0)
        self._write: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))
        self._longest = 0

    def point(self, rows: slice | Tensor, positions: Tensor, longest: int) -> None:
        """Chooses the rows of the next forward pass, where they are written, and how far they are read.

        Args:
            rows: the rows; a slice is read as a view, a tensor of indices `[n]` by a copy.
            positions: int64 `[n, tokens]`, the column of each new token.
            longest: columns that attention looks at.
        """
        index = torch.arange(self.slots, device=positions.device)[rows] if isinstance(rows, slice) else rows
        self._rows, self._write, self._longest = rows, (index[:, None], positions), longest

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Stores new keys and values `[n, kv_heads, tokens, head_dim]`; returns all of those rows so far."""
        rows, columns = self._write
        self.keys[layer][rows, :, columns] = keys.transpose(1, 2)
        self.values[layer][rows, :, columns] = values.transpose(1, 2)
        return (
            self.keys[layer][self._rows, :, : self._longest],
            self.values[layer][self._rows, :, : self._longest],
        )

    def copy_row(self, source: int, target: int, tokens: int) -> None:
        """Copies the first `tokens` columns of one row to another."""
        for store in (self.keys, self.values):
            store[:, target, :, :tokens] = store[:, source, :, :tokens]

    def save(self, row: int, ids: list[int]) -> Prefix:
        """A copy of the first `len(ids)` columns of a row."""
        keys, values = (store[:, row, :, : len(ids)].clone() for store in (self.keys, self.values))
        return Prefix(tuple(ids), keys, values)

    def restore(self, row: int, prefix: Prefix) -> None:
        """Writes a prefix to the beginning of a row."""
        tokens = len(prefix.ids)
        self.keys[:, row, :, :tokens] = prefix.keys
        self.values[:, row, :, :tokens] = prefix.values


class SlotModel:
    """A Qwen2 model over a slot cache: token ids of chosen rows in, scores of their next tokens out."""

    def __init__(self, model: Qwen2ForCausalLM, slots: int, context: int) -> None:
        self.model = model
        self.cache = SlotCache(model, slots, context)
        self._columns = torch.arange(context + 1, device=model.device)

    @torch.inference_mode()
    def forward(self, rows: slice | list[int], ids: list[list[int]], starts: list[int]) -> Tensor:
        """Scores of the token after the last of each row, fp32 `[n, vocabulary]`.

        Args:
            rows: the rows of the cache, each at most once.
            ids: the new tokens of each row, of any lengths from 0 on; a row with none is carried along idle,
                and its scores mean nothing.
            starts: how many tokens of each row are in the cache already.
        """
        device = self.model.device
        width = max(map(len, ids))
        padded = torch.tensor([row + [0] * (width - len(row)) for row in ids], device=device)
        lengths = torch.tensor([len(row) for row in ids], device=device)
        offsets = torch.arange(width, device=device)
        positions = torch.tensor(starts, device=device)[:, None] + offsets
        positions = torch.where(offsets < lengths[:, None], positions, self.cache.context)
        longest = max(start + len(row) for start, row in zip(starts, ids, strict=True))
        chosen = rows if isinstance(rows, slice) else torch.tensor(rows, device=device)
        self.cache.point(chosen, positions, longest)
        mask = self._columns[:longest] <= positions[:, None, :, None]
        hidden = self.model.model(
            input_ids=padded,
            position_ids=positions,
            attention_mask={"full_attention": mask},
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        last = hidden[torch.arange(len(ids), device=device), (lengths - 1).clamp(min=0)]
        return self.model.lm_head(last).float()  # type: ignore[no-any-return]
