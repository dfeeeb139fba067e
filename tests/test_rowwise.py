"""Linear layers with 8-bit weights: nearest values, exact products, and tokens independent of each other."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snb.engine.rowwise import FP8, INT8, Rowwise, quantised
from snb.self_test.rounding import divergence
from snb.settings import Settings
from snb.weights.loader import load
from tests.tiny import save_tiny

each_kind = pytest.mark.parametrize("held", [INT8, FP8], ids=str)
shapes = st.tuples(st.integers(1, 40), st.integers(1, 90), st.integers(1, 50))
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}
"""Largest error of a sum whose weight and result are rounded to a dtype, as a share of the terms' sum."""


def layer(weight: Tensor, held: torch.dtype, bias: Tensor | None = None) -> Rowwise:
    values, scales = quantised(weight, held)
    return Rowwise(values, scales[:, 0], None if bias is None else torch.nn.Parameter(bias, False))


def meant(values: Tensor, scales: Tensor) -> Tensor:
    return values.to(torch.float32).double() * scales.double()


@each_kind
@given(seed=st.integers(0, 99), size=st.integers(1, 70), exponent=st.integers(-30, 30), outlier=st.booleans())
def test_every_number_becomes_the_nearest_of_its_row_s_values(
    held: torch.dtype, seed: int, size: int, exponent: int, outlier: bool
) -> None:
    """Compared with a search through all 256 codes."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2, size, generator=generator) * 2.0**exponent
    rows[0, 0] *= 1e4 if outlier else 1
    values, scales = quantised(rows, held)
    codes = torch.arange(256, dtype=torch.uint8).view(held).float().double()
    codes = codes[codes.abs() <= (127 if held == INT8 else 448)]
    exact = rows.double() / scales.double()
    nearest = (exact[..., None] - codes).abs().amin(-1)
    assert torch.allclose((exact - values.float().double()).abs(), nearest, atol=1e-4)
    assert torch.equal(values.float().abs().amax(-1), torch.full((2,), 127.0 if held == INT8 else 448.0))


@each_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@given(shape=shapes, seed=st.integers(0, 99), biased=st.booleans())
def test_a_product_is_that_of_the_dequantised_numbers(
    held: torch.dtype, dtype: torch.dtype, shape: tuple[int, int, int], seed: int, biased: bool
) -> None:
    tokens, inputs, outputs = shape
    generator = torch.Generator().manual_seed(seed)
    weight, states = (torch.randn(size, inputs, generator=generator) for size in (outputs, tokens))
    states = states.to(dtype)
    bias = torch.randn(outputs, generator=generator).to(dtype) if biased else None
    own = layer(weight, held, bias)
    given = meant(*quantised(states, FP8)) if held == FP8 else states.double()
    matrix = meant(own.weight, own.scales[:, None])
    expected = given @ matrix.T + (0 if bias is None else bias.double())
    summed = given.abs() @ matrix.abs().T + expected.abs() + (0 if bias is None else bias.double().abs())
    with torch.inference_mode():
        result = own(states[:, None])
    assert (result.dtype, result.shape) == (dtype, (tokens, 1, outputs))
    # A weight or result that rounds to a subnormal has the same absolute error as any other subnormal.
    smallest = torch.finfo(dtype).tiny * torch.finfo(dtype).eps
    subnormal = smallest * (given.abs().sum(-1, keepdim=True) + 1)
    assert ((result[:, 0].double() - expected).abs() <= ROUNDING[dtype] * summed + subnormal).all()


@each_kind
def test_a_row_of_zeros_gives_zero_and_what_is_not_finite_reaches_the_result(held: torch.dtype) -> None:
    weight = torch.randn(16, 32)
    weight[3], weight[5, 7], weight[6, 7] = 0, math.nan, math.inf
    states = torch.randn(4, 32, dtype=torch.bfloat16)
    states[0], states[1, 0], states[2, 0] = 0, math.nan, -math.inf
    with torch.inference_mode():
        result = layer(weight, held)(states)
    assert not result[:, [5, 6]].isfinite().any()
    assert not result[[1, 2]].isfinite().any()
    finite = torch.ones(16, dtype=torch.bool).index_fill(0, torch.tensor([5, 6]), False)
    assert result[3, finite].isfinite().all()
    assert not result[[0, 3]][:, 3].any()
    assert not result[0, finite].any()


@each_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_no_token_s_result_depends_on_another_token(held: torch.dtype, dtype: torch.dtype) -> None:
    own = layer(torch.randn(48, 64), held)
    states = torch.randn(9, 64, dtype=dtype)
    others = torch.randn(9, 64, dtype=dtype) * 1000
    others[4] = states[4]
    with torch.inference_mode():
        assert torch.equal(own(others)[4], own(states)[4])


@pytest.mark.slow  # four loads, and the import of bitsandbytes
def test_a_model_in_int8_is_nearer_to_fp32_than_in_fp8_and_in_fp8_than_in_nf4(tmp_path: Path) -> None:
    base, ids = str(save_tiny(tmp_path)), torch.arange(3, 60)[None]
    scores = {}
    for precision in ("fp32", "int8", "fp8", "nf4"):
        settings = Settings(base, adapter="none", precision=precision, device="cpu", slots=1, context=64)
        with torch.inference_mode():
            scores[precision] = load(settings).model(ids).logits.float()
    int8, fp8, nf4 = (divergence(scores[one], scores["fp32"]).mean() for one in ("int8", "fp8", "nf4"))
    assert 0 < 2 * int8 < fp8 < nf4 / 2


@each_kind
def test_a_change_of_the_model_s_dtype_leaves_weight_and_scales_as_they_are(held: torch.dtype) -> None:
    own = layer(torch.randn(16, 32), held, torch.randn(16))
    for parameter in own.parameters():  # as the loader does, for a GPU without bf16
        parameter.data = parameter.data.half()
    assert (own.weight.dtype, own.scales.dtype) == (held, torch.float32)
    with torch.inference_mode():
        assert own(torch.randn(2, 32).half()).dtype == torch.float16
