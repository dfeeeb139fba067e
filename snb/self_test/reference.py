"""A model's forward pass in fp32: the reference for the rounding of every other precision.

One weight at a time is upcast, on the model's own device, so no second model is in memory.
"""

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from snb.engine.rowwise import Rowwise

BLOCK = 8_192
"""Rows of the output embedding that are upcast at once: in the 14B fewer than a matrix of the MLP has."""

Rotary = tuple[Tensor, Tensor]
"""Cosines and sines of the rotary embedding, `[1, tokens, head_dim]`."""


@torch.inference_mode()
def scores(model: Qwen2ForCausalLM, ids: Tensor, start: int = 0) -> Tensor:
    """Scores of every next token from position `start` on, fp32 `[n, tokens - start, vocabulary]`.

    Args:
        model: in any precision; quantised weights count as their dequantised values.
        ids: int64 `[n, tokens]`, no padding.
        start: the first position whose scores are wanted.
    """
    states = model.model.embed_tokens(ids).float()
    angles = rotary(model, states)
    for layer in model.model.layers:
        states = states + attention(layer.self_attn, norm(layer.input_layernorm, states), angles)
        states = states + mlp(layer.mlp, norm(layer.post_attention_layernorm, states))
    states = norm(model.model.norm, states[:, start:])
    blocks = model.lm_head.weight.split(BLOCK)
    return torch.cat([states @ block.float().T for block in blocks], dim=-1)


def rotary(model: Qwen2ForCausalLM, states: Tensor) -> Rotary:
    """The angles of positions 0, 1, … for hidden states `[n, tokens, hidden]`, in their dtype."""
    positions = torch.arange(states.shape[1], device=states.device)[None]
    angles: Rotary = model.model.rotary_emb(states, positions)
    return angles


def attention(module: Any, states: Tensor, angles: Rotary) -> Tensor:
    """A layer's causal attention over whole sequences; input and output fp32 `[n, tokens, hidden]`."""
    heads = (*states.shape[:-1], -1, module.head_dim)
    query, key, value = (
        product(projection, states).view(heads).transpose(1, 2)
        for projection in (module.q_proj, module.k_proj, module.v_proj)
    )
    query, key = apply_rotary_pos_emb(query, key, *angles)
    key, value = (one.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for one in (key, value))
    weights = query @ key.transpose(-1, -2) * module.scaling
    later = torch.ones(weights.shape[-2:], dtype=torch.bool, device=weights.device).triu(1)
    mixed = weights.masked_fill(later, -torch.inf).softmax(-1) @ value
    return product(module.o_proj, mixed.transpose(1, 2).flatten(2))


def mlp(module: Any, states: Tensor) -> Tensor:
    """A layer's MLP; input and output fp32 `[n, tokens, hidden]`."""
    gate = module.act_fn(product(module.gate_proj, states))
    return product(module.down_proj, gate * product(module.up_proj, states))


def norm(module: Any, states: Tensor) -> Tensor:
    """RMSNorm in fp32 (Zhang & Sennrich, 2019)."""
    scale: Tensor = states.pow(2).mean(-1, keepdim=True).add(module.variance_epsilon).rsqrt()
    return states * scale * module.weight.float()  # type: ignore[no-any-return]


def product(layer: Any, states: Tensor) -> Tensor:
    """A linear layer in fp32."""
    return linear(states, weight(layer), None if layer.bias is None else layer.bias.float())


def weight(layer: Any) -> Tensor:
    """The weight of a linear layer, dequantised if need be, fp32 `[out, in]`."""
    if isinstance(layer, Rowwise):
        return layer.dequantised(torch.float32)
    held: Tensor = layer.weight
    if packed := getattr(held, "quant_state", None):  # of nf4; imported only where there is such a weight
        from bitsandbytes.functional import dequantize_4bit

        state = copy.copy(packed)
        state.dtype = torch.float32
        held = dequantize_4bit(held.data, state)
    return held.float()
