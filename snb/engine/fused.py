"""The decode step of `SlotModel` in fewer kernels: ten launches a layer, four of them matrix products.

The weights are those of `decoder`'s layers, the cache is the model's own, and prefill stays what it was.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from snb.engine import decoder, kernels
from snb.engine.slots import SlotModel


class Layer:
    """One layer of the model, for one new token a row."""

    def __init__(self, own: decoder.Layer, keys: Tensor, values: Tensor, angles: Sequence[Tensor]) -> None:
        self._attention, self._mlp = own.attention, own.mlp
        self._cache, self._angles = (keys, values), angles

    def attention(self, states: Tensor, positions: Tensor) -> Tensor:
        """Hidden states, normed, `[n, 1, hidden]`, to what is added to them."""
        heads = self._attention.projections(states)
        queries = kernels.rotate_and_store(heads, self._angles, positions, *self._cache)
        mixed = kernels.attend(queries, *self._cache, positions)
        return self._attention.output(mixed)  # type: ignore[no-any-return]

    def mlp(self, states: Tensor) -> Tensor:
        """The same."""
        return self._mlp.output(kernels.gated(self._mlp.projections(states)))  # type: ignore[no-any-return]


class Fused:
    """The step; its layers are those that it runs."""

    def __init__(self, model: SlotModel) -> None:
        cache, qwen = model.cache, model.model.model
        parts = zip(model.layers, cache.keys, cache.values, strict=True)
        self.layers = [Layer(*part, model.angle_tables) for part in parts]
        self._embed, self._head, self._first = qwen.embed_tokens, model.head, qwen.layers[0].input_layernorm
        after = [*(layer.input_layernorm for layer in qwen.layers[1:]), qwen.norm]
        self._norms = [
            (own.post_attention_layernorm, next_norm)
            for own, next_norm in zip(qwen.layers, after, strict=True)
        ]

    @torch.inference_mode()
    def __call__(self, ids: Tensor, positions: Tensor, columns: int) -> Tensor:
        """As `SlotModel.step`, but for `columns`: each row reads as far as its own position."""
        states = self._embed(ids)
        normed = decoder.norm(self._first, states)
        for layer, (middle, end) in zip(self.layers, self._norms, strict=True):
            added = layer.attention(normed, positions)
            normed = kernels.add_norm(states, added, middle.weight, middle.variance_epsilon)
            added = layer.mlp(normed)
            normed = kernels.add_norm(states, added, end.weight, end.variance_epsilon)
        return self._head(normed)[:, -1].float()
