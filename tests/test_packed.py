"""Packed weights give the results of plain ones."""

import pytest
import torch
from torch import nn
from transformers import Qwen2ForCausalLM

from snb.engine.packed import FEW, Packed, pack
from snb.engine.slots import SlotModel
from snb.errors import DeviceUnusable
from tests.tiny import tiny_model


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 7, max(FEW), max(FEW) + 1])
def test_every_number_of_rows_gives_the_plain_product(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(48, 80, bias=bias)
    x = torch.randn(rows, 1, 48)
    with torch.inference_mode():
        torch.testing.assert_close(Packed(layer)(x), layer(x), rtol=1e-5, atol=1e-5)


def packed_layers(model: SlotModel) -> int:
    parts = [part for layer in model.layers for part in (layer.attention, layer.mlp)]
    products = [model.head, *(one for part in parts for one in (part.projections.whole, part.output))]
    return sum(isinstance(product, Packed) for product in products)


def test_all_fp32_layers_are_packed_and_those_of_the_model_and_in_16_bits_are_left() -> None:
    model = tiny_model()
    before = dict(model.named_modules())
    pack(slots := SlotModel(model, slots=2, context=64))
    assert packed_layers(slots) == 2 * 4 + 1
    assert dict(model.named_modules()) == before
    pack(slots := SlotModel(model.bfloat16(), slots=2, context=64))
    assert not packed_layers(slots)


def test_weights_too_large_to_be_held_twice_are_refused(
    model: Qwen2ForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snb.engine.packed.FIXED", 1000)
    slots = SlotModel(model, slots=2, context=64)
    with pytest.raises(DeviceUnusable, match="packed weights would take"):
        pack(slots)
    assert not packed_layers(slots)
