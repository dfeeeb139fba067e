"""The self-test accepts rounding in every precision, and finds each wrong kernel."""

import dataclasses
import functools
import logging
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from snb.engine.generation import Generation
from snb.engine.loop import Engine
from snb.engine.paths import PATHS
from snb.engine.prefills import Prefills
from snb.engine.slots import SlotCache, SlotModel
from snb.errors import SelfTestFailed
from snb.parameters import Sampling
from snb.philosophers import persona
from snb.prompt import ChatML
from snb.request import Request
from snb.self_test import Report, reference, self_test
from snb.service import Service
from snb.settings import Settings
from snb.weights.loader import Loaded, load
from tests.tiny import save_tiny, tiny_model

pytestmark = pytest.mark.slow  # deep models, in every precision

SIZES = [*((2, precision) for precision in ("fp32", "bf16", "fp16", "int8", "fp8", "nf4")), (24, "bf16")]
"""Layers and precision. With many layers rounding adds up, and could hide a fault in one of them."""
PROMPT = list(range(3, 90))
UPDATE, STEP, FORWARD, START = SlotCache.update, SlotModel.step, SlotModel._forward, SlotCache.start


def altered(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], layers: Sequence[int]) -> Any:
    """A `SlotCache.update` that changes keys and values in some layers."""

    def update(cache: SlotCache, keys: Tensor, values: Tensor, layer: int, *_: Any) -> Any:
        keys, values = UPDATE(cache, keys, values, layer)
        return change(keys, values) if layer in layers else (keys, values)

    return update


def newest_value_lost(cache: SlotCache, keys: Tensor, values: Tensor, layer: int, *_: Any) -> Any:
    return UPDATE(cache, keys, values * (values.shape[2] > 1), layer)


def positions_off_by_one(model: SlotModel, ids: Tensor, positions: Tensor, columns: int) -> Tensor:
    return STEP(model, ids, positions - 1, columns)


def stale_column(model: SlotModel, rows: Any, ids: Tensor, positions: Tensor, columns: int) -> Tensor:
    """Lets the mask show one column beyond the position."""
    columns_of_model, model._columns = model._columns, model._columns - 1
    states = FORWARD(model, rows, ids, positions, columns)
    model._columns = columns_of_model
    return states


def wrong_prefix(cache: SlotCache, row: int, prefix: Any) -> None:
    START(cache, row, prefix and dataclasses.replace(prefix, keys=prefix.keys.flip(2)))


heads_exchanged = altered(lambda keys, values: (keys.roll(1, 1), values.roll(1, 1)), [1])
neighbours_row = altered(lambda keys, values: (keys.roll(1, 0), values.roll(1, 0)), [1])
early_token_lost = altered(lambda keys, values: (keys, values.index_fill(2, torch.tensor([1]), 0)), range(24))
inexact = altered(lambda keys, values: (keys, values * 1.01), range(24))
FAULTS = {
    "heads exchanged in one layer": (SlotCache, "update", heads_exchanged),
    "the newest value lost": (SlotCache, "update", newest_value_lost),
    "an early token lost": (SlotCache, "update", early_token_lost),
    "a neighbour's row read in one layer": (SlotCache, "update", neighbours_row),
    "positions off by one": (SlotModel, "step", positions_off_by_one),
    "a stale column read": (SlotModel, "_forward", stale_column),
    "the wrong prefix": (SlotCache, "start", wrong_prefix),
}
EXACT = [fault for fault in FAULTS if fault != "heads exchanged in one layer"]
"""Faults found by exact comparison: if they are found in fp32, they are in the other precisions."""


def proved(loaded: Loaded, prompt: list[int], last: bool = True) -> Report:
    """Builds an engine as a boot does, and returns the report of its self-test."""
    engine = Engine(loaded.model, loaded.tokenizer, 4, 256, [prompt[:40]], PATHS["eager"])
    try:
        return self_test(engine, prompt, last)
    finally:
        engine.close()


def found(loaded: Loaded, prompt: list[int]) -> bool:
    """Whether the self-test fails, so that a boot would try another path."""
    try:
        proved(loaded, prompt, last=False)
    except SelfTestFailed:
        return True
    return False


@functools.cache
def random(layers: int, precision: str) -> Loaded:
    """A model with random weights, which tests share and do not change."""
    with tempfile.TemporaryDirectory() as folder:
        base = str(save_tiny(Path(folder), num_hidden_layers=layers))
        return load(Settings(base, adapter="none", precision=precision, device="cpu", slots=4, context=256))


@pytest.mark.parametrize(("layers", "precision"), SIZES)
def test_rounding_of_random_weights_is_no_fault(layers: int, precision: str) -> None:
    assert not proved(random(layers, precision), PROMPT, last=False).of("doubt")


@pytest.mark.parametrize(
    ("fault", "layers", "precision"),
    [*(("heads exchanged in one layer", *size) for size in SIZES), *((fault, 2, "fp32") for fault in EXACT)],
)
def test_each_fault_is_found_in_random_weights(
    fault: str, layers: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*FAULTS[fault])
    assert found(random(layers, precision), PROMPT)


@pytest.fixture
def plain(tmp_path: Path) -> Loaded:
    settings = Settings(str(save_tiny(tmp_path)), adapter="none", device="cpu", slots=4, context=256)
    return load(settings)


def test_a_doubt_makes_room_for_the_next_path_and_is_a_warning_where_there_is_none(
    plain: Loaded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(SlotCache, "update", inexact)
    with pytest.raises(SelfTestFailed, match="further from fp32 than rounding explains"):
        proved(plain, PROMPT, last=False)
    report = proved(plain, PROMPT, last=True)
    assert not report.of("fault")
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"self-test: {doubt}" for doubt in report.of("doubt")]
    assert warnings


def test_a_doubt_goes_with_every_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SlotCache, "update", inexact)
    service = Service(Settings(str(save_tiny(tmp_path)), adapter="none", device="cpu", slots=2, path="eager"))
    metrics: dict[str, Any] = {}
    list(service.answer(Request(user_message="Oui ?"), metrics.__setitem__))
    assert "further from fp32 than rounding explains" in metrics["boot_warning"]
    assert service.boot.path == "eager"
    assert set(service.boot.seconds) == {"weights", "load", "engine", "self_test"}


def test_an_attention_kernel_that_is_wrong_for_everybody_is_a_fault(
    plain: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers is then wrong too, so being no further from fp32 than it does not excuse the engine."""
    right = functional.scaled_dot_product_attention

    def wrong(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Tensor:
        return right(query, key.roll(1, 1), value.roll(1, 1), *rest, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", wrong)
    with pytest.raises(SelfTestFailed, match="not what fp32 gives"):
        proved(plain, PROMPT)


def test_scores_that_are_no_numbers_are_a_fault(plain: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SlotModel, "step", lambda *args: STEP(*args) * torch.nan)
    with pytest.raises(SelfTestFailed, match="not finite"):
        proved(plain, PROMPT)


def test_two_questions_of_which_one_ends_before_the_other_comes_are_no_fault(
    plain: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = Engine.generate

    def asked(*args: Any, **how: Any) -> Generation:
        (generation := generate(*args, **how))._over.wait(1)
        return generation

    monkeypatch.setattr(Engine, "generate", asked)
    assert not proved(plain, PROMPT).of("fault")


def test_a_step_that_is_not_what_it_claims_to_replay_is_a_fault(plain: Loaded) -> None:
    engine = Engine(
        plain.model, plain.tokenizer, 4, 256, path=lambda model: lambda *args: model.step(*args) + 1
    )
    with pytest.raises(SelfTestFailed, match="4 rows over 256 columns: a replayed pass"):
        self_test(engine, PROMPT)
    engine.close()


@pytest.mark.parametrize(
    ("wrong", "finding"), [(0, ""), (1, "times 64 tokens"), (0, "3 rows: a replayed choice")]
)
def test_prompts_in_fixed_shapes_and_choices_are_faults_where_they_are_not_what_was_recorded(
    plain: Loaded, wrong: int, finding: str
) -> None:
    engine = Engine(plain.model, plain.tokenizer, 4, 256, path=functools.partial(InFixedShapes, wrong=wrong))
    if "choice" in finding:
        engine.sampler.recorded[3] = functools.partial(torch.zeros, 3, dtype=torch.int64)
    with pytest.raises(SelfTestFailed, match=finding) if finding else nullcontext():
        self_test(engine, PROMPT)
    list(answer := engine.generate(PROMPT, Sampling(max_tokens=1), seed=0, keep_scores=True))
    assert answer.scores
    own = engine.model.prefill([0], [PROMPT], [0])[0]
    torch.testing.assert_close(answer.scores[0], own + wrong, rtol=0, atol=1e-2)  # through the path
    engine.close()


class InFixedShapes:
    """A path that prefills and chooses as if it recorded both; adds `wrong` to the scores of prompts."""

    record = staticmethod(lambda run: run)

    def __init__(self, model: SlotModel, wrong: int) -> None:
        self._model = model
        self.prefill_pass = Prefills(model, lambda run: lambda: run() + wrong)

    def __call__(self, ids: Tensor, positions: Tensor, columns: int) -> Tensor:
        return self._model.step(ids, positions, columns)


def test_where_a_step_is_not_even_itself_the_test_says_that_it_is_blind_and_does_not_refuse(
    plain: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)

    def noise(scores: Tensor) -> Tensor:
        return scores + 1e-6 * torch.randn(scores.shape, generator=generator)

    monkeypatch.setattr(SlotModel, "step", lambda *args: noise(STEP(*args)))
    report = proved(plain, PROMPT)
    assert report.of("blind") == ["the same step gives two results, so what it reads cannot be told"]


def test_the_reference_is_what_transformers_computes_in_fp32() -> None:
    model, ids = tiny_model(), torch.tensor([PROMPT, PROMPT[::-1]])
    with torch.inference_mode():
        expected = model(ids).logits
    assert torch.allclose(reference.scores(model, ids), expected, atol=1e-4)
    assert torch.equal(reference.scores(model, ids, start=80), reference.scores(model, ids)[:, 80:])


@pytest.mark.parametrize(("precision", "share"), [("int8", 1 / 127), ("fp8", 1 / 28), ("nf4", 0.16)])
def test_the_reference_takes_a_quantised_weight_as_it_is_held(
    precision: str, share: float, tmp_path: Path
) -> None:
    """The weight after quantising: within one rounding to the nearest level of the original, not equal."""
    settings = Settings(str(save_tiny(tmp_path)), adapter="none", precision=precision, device="cpu")
    held = reference.weight(load(settings).model.model.layers[0].mlp.down_proj)
    weight = tiny_model().model.layers[0].mlp.down_proj.weight
    assert 0 < (held - weight).abs().max() <= share * weight.abs().amax()


@pytest.fixture(scope="module", params=["bf16", "nf4"])
def trained(request: pytest.FixtureRequest, standin: Settings) -> Loaded:
    """The first 2 of the stand-in's 30 layers, adapter merged; enough, since each part is judged alone."""
    loaded = load(dataclasses.replace(standin, precision=request.param, device="cpu"))
    loaded.model.config.num_hidden_layers = 2
    loaded.model.model.layers = loaded.model.model.layers[:2]
    return loaded


@pytest.mark.standin
def test_with_trained_weights_rounding_passes_and_what_only_arithmetic_shows_is_found(
    trained: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Takes seconds, to load and quantise 135M parameters."""
    prompt = ChatML(trained.tokenizer).prompt(persona("spinoza"), Request(user_message="Que faire ?"), 1100)
    assert not proved(trained, prompt.ids[-100:], last=False).of("doubt")
    monkeypatch.setattr(SlotCache, "update", heads_exchanged)
    assert found(trained, prompt.ids[-100:])
