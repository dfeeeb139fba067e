"""Qwen2's layers over the slot cache; the weights are those of transformers' modules.

The same arithmetic as there, in fewer kernels: one product for Q, K and V and one for gate and up, keys that
are not repeated for the heads that share them, and, on a CPU, no mask where rows read all of their columns.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RMSNorm

from snb.engine.rowwise import Rowwise

Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""Stores new keys and values of a layer, `[n, kv_heads, tokens, head_dim]`, and attends to its columns."""


class Joined:
    """Linear layers of the same input, as one product unless bitsandbytes holds their weights.

    The weights become views of rows of one matrix, so transformers' own modules go on computing what they
    did. While they are being joined, one layer's weights are held twice.
    """

    def __init__(self, *parts: nn.Linear | Rowwise) -> None:
        self._parts = parts
        self.whole: nn.Linear | Rowwise | None = None
        if {type(part) for part in parts} <= {nn.Linear, Rowwise}:
            self.whole = _whole(parts)
            torch.cuda.empty_cache()  # freed blocks are too small for the next matrix, and would add up

    def __call__(self, states: Tensor) -> Tensor:
        """`[…, in_features]` to the outputs of all of them, side by side."""
        if self.whole is None:
            return torch.cat([part(states) for part in self._parts], dim=-1)
        return self.whole(states)  # type: ignore[no-any-return]


def _whole(parts: Sequence[nn.Linear | Rowwise]) -> nn.Linear | Rowwise:
    weight, bias = _rows(parts, "weight"), None
    if parts[0].bias is not None:
        bias = nn.Parameter(_rows(parts, "bias"), requires_grad=False)
    if isinstance(parts[0], Rowwise):
        return Rowwise(weight, _rows(parts, "scales"), bias)
    whole = nn.Linear(parts[0].in_features, len(weight), bias=False, device="meta")
    whole.weight = nn.Parameter(weight, requires_grad=False)
    whole.register_parameter("bias", bias)
    return whole


def _rows(parts: Sequence[nn.Module], name: str) -> Tensor:
    own = [getattr(part, name) for part in parts]
    whole = torch.cat([tensor.detach() for tensor in own])
    for tensor, rows in zip(own, whole.split_with_sizes([len(tensor) for tensor in own]), strict=True):
        tensor.data = rows
    return whole


class Attention:
    """Grouped-query attention of one layer."""

    def __init__(self, layer: Qwen2DecoderLayer) -> None:
        own = layer.self_attn
        self._number, self._head_dim = own.layer_idx, own.head_dim
        self._heads, self._kv_heads = (one.out_features // own.head_dim for one in (own.q_proj, own.k_proj))
        self.projections, self.output = Joined(own.q_proj, own.k_proj, own.v_proj), own.o_proj

    def __call__(self, states: Tensor, angles: Sequence[Tensor], attend: Attend) -> Tensor:
        """Maps normed hidden states `[n, tokens, hidden]` to what is added to the residual stream."""
        mixed = attend(*self.project(states, angles), self._number)
        return self.output(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def project(self, states: Tensor, angles: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, both rotated, and values, each `[n, heads, tokens, head_dim]`."""
        heads = self.projections(states).view(*states.shape[:2], -1, self._head_dim).transpose(1, 2)
        turned = rotated(heads[:, : self._heads + self._kv_heads], angles)
        return turned[:, : self._heads], turned[:, self._heads :], heads[:, self._heads + self._kv_heads :]


class MLP:
    """The gated MLP of one layer."""

    def __init__(self, layer: Qwen2DecoderLayer) -> None:
        own = layer.mlp
        self.projections, self.output = Joined(own.gate_proj, own.up_proj), own.down_proj
        self._activation = own.act_fn

    def __call__(self, states: Tensor) -> Tensor:
        """Maps normed hidden states `[n, tokens, hidden]` to what is added to the residual stream."""
        gate, up = self.projections(states).chunk(2, dim=-1)
        return self.output(self._activation(gate) * up)  # type: ignore[no-any-return]


class Layer:
    """One layer of the model."""

    def __init__(self, layer: Qwen2DecoderLayer) -> None:
        self.attention, self.mlp = Attention(layer), MLP(layer)
        self._norms = layer.input_layernorm, layer.post_attention_layernorm

    def __call__(self, states: Tensor, angles: Sequence[Tensor], attend: Attend) -> Tensor:
        """Updates hidden states `[n, tokens, hidden]` in place, and returns them."""
        states += self.attention(self.normed(states), angles, attend)
        states += self.mlp(norm(self._norms[1], states))
        return states

    def normed(self, states: Tensor) -> Tensor:
        """The input of attention: the hidden states, normed."""
        return norm(self._norms[0], states)


def norm(module: Qwen2RMSNorm, states: Tensor) -> Tensor:
    """RMSNorm (Zhang & Sennrich, 2019) in one kernel, where transformers has six."""
    return functional.rms_norm(states, module.weight.shape, module.weight, module.variance_epsilon)


def rotated(heads: Tensor, angles: Sequence[Tensor]) -> Tensor:
    """Rotary position embedding (Su et al., "RoFormer", 2021), bit for bit that of transformers.

    Args:
        heads: `[n, heads, tokens, head_dim]`.
        angles: cosines, and sines whose first half is negated, `[n, 1, tokens, head_dim]`.
    """
    cosine, sine = angles
    return (heads * cosine).add_(heads.roll(heads.shape[-1] // 2, dims=-1) * sine)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention in which heads that share keys count as more queries, so that no key is read twice.

    Args:
        query: `[n, heads, tokens, head_dim]`.
        key: `[n, kv_heads, columns, head_dim]`.
        value: as `key`.
        mask: added to the scores, `[n, 1, heads / kv_heads * tokens, columns]`; None if all columns count.

    Returns:
        As `query`.
    """
    grouped = query.reshape(len(query), key.shape[1], -1, query.shape[-1])
    # fp16 with plain matrix products overflows to NaN on Qwen2; sdpa does not (transformers #33317).
    return functional.scaled_dot_product_attention(grouped, key, value, mask).reshape(query.shape)
