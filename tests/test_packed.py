"""Packed weights compute what plain ones compute, and can be taken back."""

import pytest
import torch
from torch import nn
from transformers import Qwen2ForCausalLM

from snb.engine.packed import FEW, Packed, pack, unpack
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


def test_few_rows_are_read_from_the_packed_copy_and_others_from_the_weights() -> None:
    layer = nn.Linear(48, 80)
    packed = Packed(layer)
    with torch.inference_mode():
        layer.weight.zero_()
        layer.bias.zero_()
        zero = {rows: not packed(torch.randn(rows, 48)).any() for rows in (1, 2, 32, 33)}
    assert zero == {1: True, 2: False, 32: False, 33: True}


def packed_layers(model: Qwen2ForCausalLM) -> int:
    return sum(isinstance(module, Packed) for module in model.modules())


def test_all_fp32_layers_are_packed_once_and_put_back_and_those_in_16_bits_are_left() -> None:
    model = tiny_model()
    before = dict(model.named_modules())
    for _ in range(2):
        pack(model)
        assert packed_layers(model) == 2 * 7 + 1
    unpack(model)
    assert dict(model.named_modules()) == before
    pack(model.bfloat16())
    assert not packed_layers(model)


def test_weights_too_large_to_be_held_twice_are_refused(
    model: Qwen2ForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snb.engine.packed.FIXED", 1000)
    with pytest.raises(DeviceUnusable, match="packed weights would take"):
        pack(model)
    assert not packed_layers(model)
