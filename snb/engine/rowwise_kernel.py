"""The product of 16-bit inputs and int8 weights in Triton, which reads a byte for each weight.

In plain torch: `linear(states, weight * scales[:, None], bias)`. Accumulated in fp32, rounded once.
"""

import triton
from torch import Tensor
from triton import language as tl

FEW = 32
"""Most tokens at which reading the weight takes most of the time, so that many programs share the work."""


def product(states: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """One linear layer; see `snb.engine.rowwise.Rowwise`.

    Args:
        states: 16-bit floats `[tokens, in]`, contiguous.
        weight: int8 `[out, in]`, contiguous.
        scales: fp32 `[out]`.
        bias: `[out]`, or None.

    Returns:
        `[tokens, out]`, in the dtype of the states.
    """
    (tokens, inputs), outputs = states.shape, len(weight)
    result = states.new_empty(tokens, outputs)
    # Tiles are computed, not measured: 13824 × 5120 with few tokens gives 432 programs of 4 warps, each of
    # which has 3 × 8 KiB of weights in flight. `tl.dot` takes no side below 16.
    few = {"tile_tokens": 16 if tokens <= 16 else FEW, "tile_outputs": 32, "tile_inputs": 256, "num_warps": 4}
    many = {"tile_tokens": 128, "tile_outputs": 128, "tile_inputs": 64, "num_warps": 8}
    tile = few if tokens <= FEW else many
    grid = triton.cdiv(outputs, tile["tile_outputs"]), triton.cdiv(tokens, tile["tile_tokens"])
    _product[grid](
        states, weight, scales, bias, result, tokens, outputs, inputs, bias is not None, num_stages=3, **tile
    )
    return result


@triton.jit
def _product(
    states: tl.tensor,
    weight: tl.tensor,
    scales: tl.tensor,
    bias: tl.tensor,
    result: tl.tensor,
    tokens: int,
    outputs: int,
    inputs: tl.constexpr,
    biased: tl.constexpr,
    tile_tokens: tl.constexpr,
    tile_outputs: tl.constexpr,
    tile_inputs: tl.constexpr,
) -> None:
    """A tile of the result; weights come first, since Hopper's tensor cores take that side from registers."""
    output = tl.program_id(0) * tile_outputs + tl.arange(0, tile_outputs)
    token = tl.program_id(1) * tile_tokens + tl.arange(0, tile_tokens)
    total = tl.zeros((tile_outputs, tile_tokens), tl.float32)
    for start in range(0, inputs, tile_inputs):
        column = start + tl.arange(0, tile_inputs)
        inside = column < inputs
        held = tl.load(
            weight + output[:, None] * inputs + column[None, :],
            mask=(output < outputs)[:, None] & inside[None, :],
            other=0,
        )
        given = tl.load(
            states + token[None, :] * inputs + column[:, None],
            mask=(token < tokens)[None, :] & inside[:, None],
            other=0.0,
        )
        total = tl.dot(held.to(given.dtype), given, total)
    total *= tl.load(scales + output, mask=output < outputs, other=0.0)[:, None]
    if biased:
        total += tl.load(bias + output, mask=output < outputs, other=0.0).to(tl.float32)[:, None]
    tl.store(
        result + token[None, :] * outputs + output[:, None],
        total.to(result.dtype.element_ty),
        mask=(token < tokens)[None, :] & (output < outputs)[:, None],
    )
