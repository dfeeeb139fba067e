"""Linear layers of 8-bit weights, with one scale for each row of the weight.

int8 multiplies 16-bit inputs (W8A16); fp8 quantises its inputs too, with one scale for each token (W8A8).
Scales of rows commute with the product, so both kinds are applied to its result in fp32, and no token's
result depends on another token.
"""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from snb.engine.compiler import capability, lacking

INT8, FP8 = torch.int8, torch.float8_e4m3fn
LARGEST = {INT8: 127, FP8: 448}
"""What the largest magnitude of a row becomes: int8 symmetric about zero, and the largest value of e4m3."""


class Rowwise(nn.Module):
    """A linear layer whose weight and scales are buffers, since `loader._compute_in` casts all parameters.

    Attributes:
        weight: int8 or float8_e4m3fn `[out, in]`.
        scales: fp32 `[out]`; `weight * scales[:, None]` is the dequantised weight.
        bias: `[out]`, in the dtype of inputs and outputs, or None.
    """

    weight: Tensor
    scales: Tensor
    bias: nn.Parameter | None

    def __init__(self, weight: Tensor, scales: Tensor, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight)
        self.register_buffer("scales", scales)
        self.register_parameter("bias", bias)

    def forward(self, states: Tensor) -> Tensor:
        """`[…, in]` to `[…, out]`, in the dtype of the input."""
        if self.weight.dtype == FP8:
            return self.product(*quantised(states, FP8), states.dtype)
        if (kernel := _kernel(states.device)) and states.element_size() == 2:
            tokens = states.reshape(-1, self.in_features).contiguous()
            result = kernel(tokens, self.weight, self.scales, self.bias)
            return result.view(*states.shape[:-1], self.out_features)
        return linear(states, self.dequantised(states.dtype), self.bias)

    def product(self, values: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
        """The output for inputs that are quantised to fp8 already.

        Args:
            values: float8_e4m3fn `[…, in]`.
            scales: fp32 `[…, 1]`, of each token.
            dtype: of the result, `[…, out]`.
        """
        # Unit scales, since with row scales `_scaled_mm` of torch before 2.12 ignores the stream on sm89
        # (pytorch #177651); and fp32, which holds 448² × in, where fp16 would overflow. On a GPU both sizes
        # of the weight have to be multiples of 16; any number of tokens will do.
        unit, tokens = _unit(values.device), values.reshape(-1, self.in_features)
        raw = torch._scaled_mm(tokens, self.weight.t(), unit, unit, out_dtype=torch.float32)
        raw *= scales.reshape(-1, 1)
        result = torch.empty_like(raw, dtype=dtype)
        if self.bias is None:
            torch.mul(raw, self.scales, out=result)
        else:
            torch.addcmul(self.bias, raw, self.scales, out=result)
        return result.view(*values.shape[:-1], self.out_features)

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """The dequantised weight, `[out, in]`, rounded once to `dtype`."""
        if self.weight.dtype == FP8:
            return (self.weight.float() * self.scales[:, None]).to(dtype)
        result = torch.empty_like(self.weight, dtype=dtype)
        return torch.mul(self.weight, self.scales[:, None], out=result)


@functools.cache
def _kernel(device: torch.device) -> Callable[..., Tensor] | None:
    """The product as a Triton kernel; None where Triton cannot compile it."""
    if any(lacking(capability(device))):
        return None
    from snb.engine.rowwise_kernel import product

    return product


@functools.cache
def _unit(device: torch.device) -> Tensor:
    return torch.ones((), device=device)


def quantised(rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Quantises each row by its own largest magnitude, to the nearest value, ties to even.

    NaN and infinity make every product of their row NaN or infinite, so a self-test sees them.

    Args:
        rows: floats `[…, n]`.
        dtype: int8 or float8_e4m3fn.

    Returns:
        Values of that dtype, and fp32 scales `[…, 1]`, above zero, by which they have to be multiplied.
    """
    scales = torch.linalg.vector_norm(rows, math.inf, -1, keepdim=True, dtype=torch.float32) / LARGEST[dtype]
    scales = scales.clamp_min(torch.finfo(torch.float32).tiny)
    exact = rows / scales  # in fp32
    return (exact.round() if dtype == INT8 else exact).to(dtype), scales
