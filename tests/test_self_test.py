"""The self-test passes rounding in every precision and catches a wrong kernel."""

import dataclasses
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from snb.engine import Engine
from snb.errors import SelfTestFailed
from snb.loader import Loaded, load
from snb.philosophers import persona
from snb.prompt import ChatML
from snb.request import Request
from snb.self_test import TOLERANCE, self_test
from snb.settings import Settings
from snb.slots import SlotCache, SlotModel

UPDATE, STEP = SlotCache.update, SlotModel.step


def heads_exchanged(self: SlotCache, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any) -> Any:
    keys, values = UPDATE(self, keys, values, layer)
    return (keys.roll(1, 1), values.roll(1, 1)) if layer == 1 else (keys, values)


def newest_value_lost(self: SlotCache, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any) -> Any:
    keys, values = UPDATE(self, keys, values * (values.shape[2] > 1), layer)
    return keys, values


def positions_off_by_one(
    self: SlotModel, ids: torch.Tensor, positions: torch.Tensor, columns: int
) -> torch.Tensor:
    return STEP(self, ids, positions - 1, columns)


FAULTS = {
    "heads exchanged in one layer": (SlotCache, "update", heads_exchanged),
    "newest value lost": (SlotCache, "update", newest_value_lost),
    "positions off by one": (SlotModel, "step", positions_off_by_one),
}


def proved(model: Qwen2ForCausalLM, tokenizer: Tokenizer, prompt: list[int], precision: str) -> None:
    """Builds an engine, as a boot does, and tests it."""
    engine = Engine(model, tokenizer, slots=2, context=1200)
    try:
        self_test(engine, model, prompt, precision)
    finally:
        engine.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_caught_on_a_random_model(
    fault: str,
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proved(model, tokenizer.backend_tokenizer, list(range(3, 80)), "fp32")
    monkeypatch.setattr(*FAULTS[fault])
    with pytest.raises(SelfTestFailed, match="nats"):
        proved(model, tokenizer.backend_tokenizer, list(range(3, 80)), "fp32")


def test_scores_that_are_not_numbers_fail(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlotModel, "step", lambda *args: STEP(*args) * torch.nan)
    with pytest.raises(SelfTestFailed):
        proved(model, tokenizer.backend_tokenizer, [5, 6, 7], "fp32")


@pytest.fixture(scope="module", params=TOLERANCE)
def loaded(request: pytest.FixtureRequest, standin: Settings) -> Loaded:
    """The stand-in with its adapter merged, in each precision, as `setup()` loads it."""
    return load(dataclasses.replace(standin, precision=request.param, device="cpu"))


@pytest.mark.standin
def test_every_precision_passes_and_a_wrong_kernel_does_not(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = Request(user_message="Que dois-je faire ?")
    prompt = ChatML(loaded.tokenizer).prompt(persona("spinoza"), question, room=1100).ids
    if loaded.choice.precision == "fp16":
        prompt = prompt[-256:]  # most CPUs emulate it: all of it takes minutes
    proved(loaded.model, loaded.tokenizer, prompt, loaded.choice.precision)
    for fault in ("heads exchanged in one layer", "positions off by one"):
        with monkeypatch.context() as broken:
            broken.setattr(*FAULTS[fault])
            with pytest.raises(SelfTestFailed):
                proved(loaded.model, loaded.tokenizer, prompt, loaded.choice.precision)
