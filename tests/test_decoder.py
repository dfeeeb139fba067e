"""The engine's layers compute what those of transformers do, and hold no weight twice."""

import copy

import pytest
import torch
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from snb.engine.decoder import Joined, rotated
from snb.engine.rowwise import FP8, INT8, Rowwise, quantised
from snb.engine.slots import SlotModel
from tests.tiny import tiny_model

each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@each_dtype
@pytest.mark.parametrize("rows", [1, 2, 16, 32, 200])
def test_joined_weights_are_those_of_the_parts_bit_for_bit_and_products_but_for_rounding(
    rows: int, dtype: torch.dtype
) -> None:
    """In the stand-in's shapes: Q, K and V of one layer, and gate and up.

    A CPU with AMX sums up a wider bf16 matrix in another order.
    """
    torch.manual_seed(0)
    for sizes, bias in (((576, 192, 192), True), ((1536, 1536), False)):
        parts = [torch.nn.Linear(576, size, bias, dtype=dtype) for size in sizes]
        weights = torch.cat([part.weight for part in parts])
        states = torch.randn(rows, 1, 576, dtype=dtype)
        with torch.inference_mode():
            apart = [part(states) for part in copy.deepcopy(parts)]
            joined = Joined(*parts)
            assert joined.whole
            assert torch.equal(joined.whole.weight, weights)
            assert torch.equal(torch.cat([part.weight for part in parts]), weights)
            torch.testing.assert_close(joined(states), torch.cat(apart, dim=-1))


@pytest.mark.parametrize("held", [INT8, FP8], ids=str)
def test_rows_of_8_bits_are_joined_with_their_scales(held: torch.dtype) -> None:
    torch.manual_seed(0)
    parts = []
    for size in (64, 16, 16):
        values, scales = quantised(torch.randn(size, 64), held)
        parts.append(Rowwise(values, scales[:, 0], torch.nn.Parameter(torch.randn(size), False)))
    states = torch.randn(3, 1, 64)
    with torch.inference_mode():
        apart = torch.cat([part(states) for part in parts], dim=-1)
        joined = Joined(*parts)
        assert isinstance(joined.whole, Rowwise)
        assert torch.allclose(joined(states), apart, atol=1e-5)
        assert all(part.weight.untyped_storage().nbytes() == 96 * 64 for part in parts)


def test_attention_leaves_out_cudnn_which_plans_for_each_new_shape() -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    SlotModel(tiny_model(), slots=1, context=16)
    assert not torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]


def test_the_parts_are_views_of_the_joined_matrix() -> None:
    """Also when a second engine joins them again, so that the first engine's memory is freed with it."""
    model = tiny_model()
    for _ in range(2):
        [layer, *_] = SlotModel(model, slots=1, context=16).layers
        own = model.model.layers[0]
        for joined, parts in (
            (layer.attention.projections, (own.self_attn.q_proj, own.self_attn.k_proj, own.self_attn.v_proj)),
            (layer.mlp.projections, (own.mlp.gate_proj, own.mlp.up_proj)),
        ):
            assert joined.whole
            store = joined.whole.weight.untyped_storage()
            assert {part.weight.untyped_storage().data_ptr() for part in parts} == {store.data_ptr()}
            assert store.nbytes() == sum(part.weight.nbytes for part in parts)


@each_dtype
def test_rotary_embeddings_are_those_of_transformers_bit_for_bit(dtype: torch.dtype) -> None:
    model = tiny_model().to(dtype)
    heads, positions = torch.randn(3, 4, 5, 16, dtype=dtype), torch.randint(0, 60, (3, 5))
    expected, _ = apply_rotary_pos_emb(heads, heads, *model.model.rotary_emb(heads, positions))
    assert torch.equal(rotated(heads, SlotModel(model, 1, 64).angles(positions)), expected)
