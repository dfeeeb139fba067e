"""The product in Triton against plain PyTorch, in Triton's interpreter, which knows no bf16."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snb.engine import rowwise

if torch.cuda.is_available():
    pytest.skip("compiled, it is tested in tests/test_gpu.py", allow_module_level=True)
pytest.importorskip("triton", reason="it comes with PyTorch's builds for a GPU")
from snb.engine.rowwise_kernel import product


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@settings(max_examples=10)
@given(st.sampled_from([1, 16, 17, 33, 130]), st.integers(1, 300), st.integers(1, 140), st.booleans())
def test_a_product_is_the_plain_one_rounded_once(
    dtype: torch.dtype, tokens: int, inputs: int, outputs: int, biased: bool
) -> None:
    torch.manual_seed(0)
    values, scales = rowwise.quantised(torch.randn(outputs, inputs), rowwise.INT8)
    states, bias = torch.randn(tokens, inputs).to(dtype), torch.randn(outputs).to(dtype) if biased else None
    states[-1, 0] = torch.nan
    result = product(states, values, scales[:, 0].contiguous(), bias)
    matrix = (values.double() * scales.double()).T
    exact = states.double() @ matrix + (0 if bias is None else bias.double())
    assert result.dtype == dtype
    assert result[-1].isnan().all()
    allowed = torch.finfo(dtype).eps * exact.abs() + 1e-5 * (states.double().abs() @ matrix.abs())
    assert ((result.double() - exact).abs() <= allowed)[:-1].all()


def test_a_layer_takes_it_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    values, scales = rowwise.quantised(torch.randn(50, 70), rowwise.INT8)
    layer = rowwise.Rowwise(values, scales[:, 0], torch.nn.Parameter(torch.randn(50).half(), False))
    states = torch.randn(3, 140).half()[:, ::2].reshape(3, 1, 70)
    with torch.inference_mode():
        plain = layer(states)
        monkeypatch.setattr(rowwise, "_kernel", lambda _: product)
        own = layer(states)
    assert own.shape == plain.shape
    assert not torch.equal(own, plain)  # the weight is not rounded on the way
    assert torch.allclose(own, plain, rtol=1e-2, atol=1e-2)
