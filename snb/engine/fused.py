"""The decode step of `SlotModel` in fewer kernels: ten launches a layer, four of them matrix products.

The weights are those of `decoder`'s layers, and the cache is the model's own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from snb.engine import decoder, kernels
from snb.engine.kernels import Quantised
from snb.engine.rowwise import FP8, Rowwise
from snb.engine.slots import SlotModel


class Layer:
    """One layer of the model, for one new token per row."""

    def __init__(self, own: decoder.Layer, keys: Tensor, values: Tensor, angles: Sequence[Tensor]) -> None:
        # One product each, unless bitsandbytes holds the weights.
        self._heads = own.attention.projections.whole or own.attention.projections
        self._gates = own.mlp.projections.whole or own.mlp.projections
        self._mixed, self._gated = own.attention.output, own.mlp.output
        self._cache, self._angles = (keys, values), angles
        self.fp8 = in_fp8(self._heads), in_fp8(self._gates)
        """Whether attention, and whether the MLP, takes its input quantised to fp8."""

    def attention(self, states: Tensor | Quantised, positions: Tensor) -> Tensor:
        """Maps normed hidden states `[n, 1, hidden]` to what is added to the residual stream."""
        heads = product(self._heads, states)
        queries = kernels.rotate_and_store(heads, self._angles, positions, *self._cache)
        mixed = kernels.attend(queries, *self._cache, positions)
        return product(self._mixed, mixed)

    def mlp(self, states: Tensor | Quantised) -> Tensor:
        """As `attention`, for the MLP."""
        return product(self._gated, kernels.gated(product(self._gates, states), in_fp8(self._gated)))


def in_fp8(layer: Any) -> bool:
    """Whether a layer's inputs are fp8, so that the kernel before it may quantise them."""
    return isinstance(layer, Rowwise) and layer.weight.dtype == FP8


def product(layer: Any, given: Tensor | Quantised) -> Tensor:
    """The output of a linear layer."""
    return layer.product(*given) if isinstance(given, Quantised) else layer(given)  # type: ignore[no-any-return]


class Fused:
    """The fused decode step; the self-test records what goes into and comes out of its `layers`."""

    def __init__(self, model: SlotModel) -> None:
        cache, qwen = model.cache, model.model.model
        parts = zip(model.layers, cache.keys, cache.values, strict=True)
        self.layers = [Layer(*part, model.angle_tables) for part in parts]
        self._embed, self._head, self._first = qwen.embed_tokens, model.head, qwen.layers[0].input_layernorm
        norms = [norm for own in qwen.layers for norm in (own.input_layernorm, own.post_attention_layernorm)]
        fp8 = [one for layer in self.layers for one in layer.fp8]
        # The norms that follow an addition: all of the layers' but the first, and the one before the head.
        after = zip([*norms[1:], qwen.norm], [*fp8[1:], in_fp8(self._head)], strict=True)
        self._norms = [(norm.weight, norm.variance_epsilon, quantised) for norm, quantised in after]

    @torch.inference_mode()
    def __call__(self, ids: Tensor, positions: Tensor, columns: int) -> Tensor:
        """As `SlotModel.step`, but `columns` is ignored: each row reads as far as its own position."""
        states = self._embed(ids)
        normed: Tensor | Quantised = decoder.norm(self._first, states)
        for layer, middle, end in zip(self.layers, self._norms[::2], self._norms[1::2], strict=True):
            normed = kernels.add_norm(states, layer.attention(normed, positions), *middle)
            normed = kernels.add_norm(states, layer.mlp(normed), *end)
        return product(self._head, normed)[:, -1].float()
