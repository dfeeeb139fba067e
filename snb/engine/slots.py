"""The KV cache: one preallocated row for each request, and the model's forward pass over chosen rows."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM

from snb.engine import decoder, shared
from snb.engine.decoder import Layer
from snb.engine.shared import Prefix, Sharing

ALIGNMENT = 64
"""On a GPU attention reads columns in multiples of this, since CUDA copies an unaligned mask per layer."""


def sent(numbers: Sequence[Any], device: torch.device) -> Tensor:
    """Copies numbers to a tensor on the device, without waiting for the work that is queued there."""
    tensor = torch.tensor(numbers)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


Step = Callable[[Tensor, Tensor, int], Tensor]
"""A decode step: what `SlotModel.step` does."""
PrefillPass = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]
"""One chunk of prefill: what `SlotModel.prefill_pass` does."""


class SlotCache:
    """Keys and values, each `[layers, slots, kv_heads, context + 1, head_dim]` in the model's dtype.

    A row belongs to one request at a time, and nothing leaks from one to the next: attention to a row stops
    at the row's own position, and whatever a former owner left beyond it is overwritten before it is read.
    The one column past the context takes the writes of padding, so that padding never overwrites real tokens.
    """

    def __init__(self, model: Qwen2ForCausalLM, slots: int, context: int) -> None:
        config = model.config
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, slots, config.num_key_value_heads, context + 1, head_dim)
        self.keys = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self.values = torch.zeros_like(self.keys)
        self._layers = list(zip(self.keys, self.values, strict=True))
        self.slots, self.context = slots, context
        self.prefixes: list[Prefix | None] = [None] * slots
        self._rows: slice | Tensor = slice(0)
        self._write: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))
        self._columns = slice(0)

    def point(self, rows: slice | Tensor, positions: Tensor, columns: slice) -> None:
        """Chooses the rows of the next forward pass, the columns to write and the columns to read.

        Args:
            rows: a slice, which is read as a view, or a tensor of indices `[n]`, which copies.
            positions: int64 `[n, tokens]`, the column of each new token.
            columns: the columns that attention reads.
        """
        index = torch.arange(self.slots, device=positions.device)[rows] if isinstance(rows, slice) else rows
        self._rows, self._write, self._columns = rows, (index[:, None], positions), columns

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Stores new keys and values `[n, kv_heads, tokens, head_dim]`; returns those to be read."""
        stored_keys, stored_values = self._layers[layer]
        rows, columns = self._write
        stored_keys[rows, :, columns] = keys.transpose(1, 2)
        stored_values[rows, :, columns] = values.transpose(1, 2)
        read = self._rows, slice(None), self._columns
        return stored_keys[read], stored_values[read]

    def sharing(self, rows: slice | Tensor) -> Sharing | None:
        """Groups rows by prefix if that saves reads: every row has one, and some have the same. Else None."""
        chosen = self.prefixes[rows] if isinstance(rows, slice) else [self.prefixes[row] for row in rows]
        prefixes = [prefix for prefix in chosen if prefix]
        return Sharing.of(prefixes) if len(prefixes) == len(chosen) > len(set(prefixes)) else None

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copies the first `tokens` columns of one row to another."""
        self.prefixes[target] = self.prefixes[source]
        for store in (self.keys, self.values):
            store[:, target, :, :tokens] = store[:, source, :, :tokens]

    def save(self, row: int, ids: Sequence[int]) -> Prefix:
        """A copy of the first `len(ids)` columns of a row."""
        keys, values = (store[:, row, :, : len(ids)].clone() for store in (self.keys, self.values))
        return Prefix(tuple(ids), keys, values)

    def start(self, row: int, prefix: Prefix | None) -> None:
        """Gives a row to a new request, and copies in the prefix that its prompt begins with, if any."""
        self.prefixes[row] = prefix
        if prefix:
            tokens = len(prefix.ids)
            self.keys[:, row, :, :tokens] = prefix.keys
            self.values[:, row, :, :tokens] = prefix.values

    def clear(self, row: int) -> None:
        """Zeroes a row: NaN left in it would spoil the next owner's answer even where a mask hides it."""
        self.keys[:, row].zero_()
        self.values[:, row].zero_()


class SlotModel:
    """A Qwen2 model over a slot cache: token ids of chosen rows in, scores of their next tokens out.

    Args:
        model: on its device, in eval mode.
        slots: rows of the cache.
        context: tokens of one row.
    """

    def __init__(self, model: Qwen2ForCausalLM, slots: int, context: int) -> None:
        # On Hopper and Blackwell, torch 2.10 prefers the attention of cuDNN 9.15.1 or later (CUDA 13), which
        # plans each new shape anew, half a second on a B200 (modelscope/FunASR #3704), and prompts come in
        # any shape. Delete this when one plan serves all shapes.
        torch.backends.cuda.enable_cudnn_sdp(False)
        self.model = model
        self.layers = [Layer(layer) for layer in model.model.layers]  # first: the cache takes what is left
        self.cache = SlotCache(model, slots, context)
        self.head: Callable[[Tensor], Tensor] = model.lm_head
        self.sharing = False
        """Whether a prefix is read once for all rows that begin with it."""
        self._groups = model.config.num_attention_heads // model.config.num_key_value_heads
        self._columns = torch.arange(context + 1, device=model.device)
        cosines, sines = model.model.rotary_emb(self.cache.keys[0, :1, :1], self._columns[None])
        sines[..., : sines.shape[-1] // 2] *= -1
        self.angle_tables = cosines[0], sines[0]
        """Cosines and sines of each position, `[context + 1, head_dim]`; see `decoder.rotated`."""

    def angles(self, positions: Tensor) -> list[Tensor]:
        """Rotary cosines and sines, each `[n, 1, tokens, head_dim]`; see `decoder.rotated`."""
        return [table[positions][:, None] for table in self.angle_tables]

    @torch.inference_mode()
    def prefill(
        self, rows: list[int], ids: list[list[int]], starts: list[int], run: PrefillPass | None = None
    ) -> Tensor:
        """Runs the new tokens of some rows; returns each row's next-token scores, fp32 `[n, vocabulary]`.

        Args:
            rows: the rows of the cache, each at most once.
            ids: the new tokens of each row, at least one.
            starts: how many tokens of each row are in the cache already.
            run: a recorded pass; by default this model's own, which runs eagerly.
        """
        width = max(map(len, ids))
        padded = self._tensor([row + [0] * (width - len(row)) for row in ids])
        lengths, offsets = self._tensor([len(row) for row in ids]), self._columns[:width]
        positions = self._tensor(starts)[:, None] + offsets
        positions = torch.where(offsets < lengths[:, None], positions, self.cache.context)
        longest = max(start + len(row) for start, row in zip(starts, ids, strict=True))
        run = run or self.prefill_pass
        return run(self._tensor(rows), padded, positions, lengths - 1, self.aligned(longest))

    @torch.inference_mode()
    def prefill_pass(
        self, rows: Tensor, ids: Tensor, positions: Tensor, last: Tensor, columns: int
    ) -> Tensor:
        """One pass over new tokens; as in `step`, all its work is on the device.

        Args:
            rows: int64 `[n]`, of the cache.
            ids: int64 `[n, tokens]`.
            positions: int64 `[n, tokens]`, the column of each; the one past the context for padding.
            last: int64 `[n]`, the index of each row's last token, whose scores are returned.
            columns: how many columns attention reads.

        Returns:
            Scores, fp32 `[n, vocabulary]`.
        """
        hidden = self._forward(rows, ids, positions, columns)
        return self._scores(hidden[self._columns[: len(ids)], last])

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int], starts: Sequence[int], step: Step | None = None) -> Tensor:
        """As `prefill`, for one new token in each of the first `len(tokens)` rows.

        `step` is one of `snb.engine.paths`; by default this model's own, which runs eagerly.
        """
        ids, positions = self._tensor(tokens)[:, None], self._tensor(starts)[:, None]
        return (step or self.step)(ids, positions, self.aligned(max(starts) + 1))

    @torch.inference_mode()
    def step(self, ids: Tensor, positions: Tensor, columns: int) -> Tensor:
        """One decode step of the first n rows; all its work is on the device, so that a graph can record it.

        Args:
            ids: int64 `[n, 1]`.
            positions: int64 `[n, 1]`, the column of each; the one past the context for a graph's idle rows.
            columns: how many columns attention reads.

        Returns:
            Scores, fp32 `[n, vocabulary]`.
        """
        return self._scores(self._forward(slice(0, len(ids)), ids, positions, columns)[:, -1])

    def _forward(self, rows: slice | Tensor, ids: Tensor, positions: Tensor, columns: int) -> Tensor:
        """Hidden states `[n, tokens, hidden]` of new tokens, int64 `[n, tokens]`, at their positions."""
        sharing = self.cache.sharing(rows) if self.sharing else None
        read = slice(sharing.first if sharing else 0, columns)
        self.cache.point(rows, positions, read)
        mask = self._mask(positions, read, sharing)

        def attend(query: Tensor, key: Tensor, value: Tensor, layer: int) -> Tensor:
            key, value = self.cache.update(key, value, layer)
            if sharing:
                return shared.attention(query, key, value, mask, sharing, layer)
            return decoder.attention(query, key, value, mask)

        states: Tensor = self.model.model.embed_tokens(ids)
        angles = self.angles(positions)
        for layer in self.layers:
            states = layer(states, angles, attend)
        return self.model.model.norm(states)  # type: ignore[no-any-return]

    def _mask(self, positions: Tensor, read: slice, sharing: Sharing | None) -> Tensor | None:
        """What is added to attention scores; None on a CPU if each token reads all of the columns."""
        hidden = self._columns[read] > positions[:, None, :, None]
        if sharing:
            hidden = hidden | (self._columns[read] < sharing.own[:, None, None, None])
        if hidden.device.type == "cpu" and not hidden.any():
            return None
        mask = torch.zeros(hidden.shape, dtype=self.model.dtype, device=hidden.device)
        return mask.masked_fill_(hidden, -torch.inf).repeat(1, 1, self._groups, 1)

    def _scores(self, states: Tensor) -> Tensor:
        return self.head(states).float()

    def aligned(self, columns: int) -> int:
        """How many columns attention reads when it needs the first `columns`."""
        if self._columns.device.type == "cpu":
            return min(columns, self.cache.context)
        return min(-(-columns // ALIGNMENT) * ALIGNMENT, self.cache.context)

    def _tensor(self, numbers: Sequence[Any]) -> Tensor:
        return sent(numbers, self.model.device)
