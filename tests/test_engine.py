"""The engine: each of many requests at once gets the text of plain `generate`, and ends cleanly."""

import itertools
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from snb.card import PREFILL_TOKENS
from snb.engine import loop
from snb.engine.detokenizer import Detokenizer
from snb.engine.generation import Generation
from snb.engine.loop import BESIDE, Engine
from snb.engine.paths import fastest
from snb.engine.slots import SlotModel, Step
from snb.errors import BadInput, DeadlinePassed, EngineDown, EngineStuck
from snb.parameters import Sampling
from snb.request import Request
from snb.service import Service, joined
from snb.settings import Settings
from tests.tiny import save_tiny, talkative, tiny_model
from tests.waiting import until

GREEDY = Sampling(max_tokens=24, temperature=0, repetition_penalty=1)
START = 1
"""<|im_start|>, the only token of the tiny vocabulary that is never drawn."""


def reference(model: Qwen2ForCausalLM, prompt: list[int], tokens: int, **options: float) -> list[int]:
    ids = torch.tensor([prompt], device=model.device)
    options = {"max_new_tokens": tokens, "do_sample": False, **options}
    output = model.generate(ids, attention_mask=torch.ones_like(ids), suppress_tokens=[START], **options)
    return output[0, len(prompt) :].tolist()  # type: ignore[no-any-return]


def prompts(number: int, longest: int = 60) -> list[list[int]]:
    generator = torch.Generator().manual_seed(number)
    lengths = torch.randint(1, longest, (number,), generator=generator).tolist()
    return [torch.randint(3, 390, (n,), generator=generator).tolist() for n in lengths]


Start = Callable[..., Engine]
Path = Callable[[SlotModel], Step]


def answered(engine: Engine, model: Qwen2ForCausalLM, asked: Sequence[list[int]], penalty: float = 1) -> bool:
    """Whether prompts that are asked together each get the tokens of plain `generate`."""
    sampling = replace(GREEDY, repetition_penalty=penalty)
    generations = [engine.generate(prompt, sampling, seed=0) for prompt in asked]
    for generation in generations:
        list(generation)
    alone = [reference(model, prompt, 24, repetition_penalty=penalty) for prompt in asked]
    return [generation.tokens for generation in generations] == alone


def saying(scores: dict[int, float], **changes: Any) -> Qwen2ForCausalLM:
    """A model that gives some tokens the same scores at every position, and the others zero."""
    model = tiny_model(**changes)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        for token, score in scores.items():
            model.lm_head.weight[token] = score
    model.model.norm.register_forward_hook(lambda _, __, output: torch.ones_like(output))
    return model


CHUNKED = [5, 6, 7] * ((PREFILL_TOKENS + 200) // 3)


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize(
    ("slots", "asked"),
    [(4, prompts(11)), (2, [CHUNKED, [8, 9], CHUNKED]), (1, [[4] * 200, [7, 8, 9], [4] * 100, [7, 8, 9]])],
    ids=["more than slots", "longer than a chunk of prefill", "after a longer one"],
)
def test_requests_together_each_give_what_they_give_alone(
    started: Start, model: Qwen2ForCausalLM, path: Path, lag: int, slots: int, asked: list[list[int]]
) -> None:
    assert answered(started(slots=slots, context=900, path=path, lag=lag), model, asked)


@pytest.mark.parametrize(
    ("named", "end"),
    [([2, 0], 0), ([2, 0], 2), (0, 2), (2, 0), (None, 0), (None, 2), (70, 70), ([70, -1, 391], 2)],
)
def test_each_end_token_ends_an_answer_after_min_tokens_whatever_the_model_s_files_name(
    named: int | list[int] | None, end: int, started: Start, tokenizer: PreTrainedTokenizerFast
) -> None:
    engine = started(saying({end: 1.0, 80: 0.5}, eos_token_id=named), slots=1)
    generation = engine.generate([5], Sampling(max_tokens=9, min_tokens=3, temperature=0), seed=0)
    assert "".join(generation) == 3 * tokenizer.decode([80])
    assert (generation.finish_reason, generation.tokens) == ("stop", [80, 80, 80, end])


@pytest.mark.parametrize(("prompt", "most", "length"), [(2, 3, 3), (250, 50, 6)])
def test_max_tokens_and_the_context_end_an_answer_as_length(
    engine: Engine, prompt: int, most: int, length: int
) -> None:
    generation = engine.generate([5] * prompt, replace(GREEDY, max_tokens=most, min_tokens=most), seed=0)
    list(generation)
    assert (len(generation.tokens), generation.finish_reason) == (length, "length")


BAD: list[tuple[list[Any], Sampling, int]] = [
    *((prompt, GREEDY, 0) for prompt in ([], [-1], [391], [1.5], [5] * 256)),
    *(([5], replace(GREEDY, top_k=-1), 0), ([5], GREEDY, 2**63), ([5], GREEDY, -1)),
]


@pytest.mark.parametrize(("prompt", "sampling", "seed"), BAD)
def test_what_cannot_be_computed_is_refused_and_disturbs_nobody(
    engine: Engine, prompt: list[Any], sampling: Sampling, seed: int
) -> None:
    running = engine.generate([5], GREEDY, seed=0)
    with pytest.raises(BadInput):
        engine.generate(prompt, sampling, seed)
    list(running)
    assert running.finish_reason in ("stop", "length")
    assert engine.healthy


def test_a_loop_that_dies_ends_every_request_with_an_error_and_refuses_new_ones(started: Start) -> None:
    model = tiny_model()
    engine = started(model)
    model.model.norm.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(EngineDown):
        list(engine.generate([5], GREEDY, seed=0))
    assert not engine.healthy
    with pytest.raises(EngineDown):
        engine.generate([5], GREEDY, seed=0)


def test_a_closed_engine_refuses_and_leaves_no_thread(started: Start) -> None:
    before = set(threading.enumerate())
    engine = started()
    engine.close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(EngineDown):
        engine.generate([5], GREEDY, seed=0)


@pytest.mark.parametrize("penalty", [1.3, 0.8])
def test_the_repetition_penalty_is_that_of_transformers_and_each_request_s_own(
    engine: Engine, model: Qwen2ForCausalLM, penalty: float
) -> None:
    plain = engine.generate([5, 6, 7], GREEDY, seed=0)
    assert answered(engine, model, prompts(5), penalty)
    list(plain)
    assert plain.tokens == reference(model, [5, 6, 7], 24)


def test_presence_and_frequency_penalties_count_the_answer_alone(engine: Engine) -> None:
    """By hand over the kept scores: presence is subtracted once, frequency once for each occurrence."""
    sampling = replace(GREEDY, min_tokens=24, presence_penalty=2, frequency_penalty=0.5)
    generation = engine.generate([5] * 20, sampling, seed=0, keep_scores=True)
    list(generation)
    said = torch.zeros(391)
    for token, kept in zip(generation.tokens, generation.scores or [], strict=True):
        scores = kept.clone()
        scores[[START, 0, 2]] = -torch.inf  # the end tokens, until min_tokens
        assert token == (scores - 2 * (said > 0) - 0.5 * said).argmax()
        said[token] += 1


@pytest.fixture(params=[0, 1])
def talker(request: pytest.FixtureRequest, started: Start) -> Engine:
    """An engine in which every token is a piece of text, read at once or a step behind the device."""
    return started(talkative(tiny_model()), slots=2, lag=request.param)


def test_a_loop_that_is_a_step_behind_gives_the_next_one_before_it_reads_and_nobody_sees_the_last(
    started: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    take = Generation.take

    def taken(*args: Any, **how: Any) -> None:
        events.append("read")
        take(*args, **how)

    monkeypatch.setattr(Generation, "take", taken)
    model = talkative(tiny_model())
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda *_: events.append("given"))
    engine = started(model, lag=1)
    whole = engine.generate([9, 8, 7], GREEDY, seed=0)
    text = "".join(whole)
    until(lambda: events.count("read") == 24)
    assert events == ["given", *["given", "read"] * 23, "read"]  # no step after the last token
    events.clear()
    how = replace(GREEDY, stop_sequences=(text[len(text) // 2 :][:4],))
    cut = engine.generate([9, 8, 7], how, seed=0, keep_scores=True)
    assert text.startswith("".join(cut))
    assert len(cut.tokens) == len(cut.scores or []) < 24
    until(lambda: not engine.busy)
    assert events.count("read") == len(cut.tokens) == events.count("given") - 1
    until(lambda: not engine._chosen)  # nothing is left unread
    hook.remove()


def test_a_stop_string_cuts_the_text_and_ends_decoding_at_once(talker: Engine) -> None:
    whole = talker.generate([9, 8, 7], GREEDY, seed=0)
    text = "".join(whole)
    stop = text[len(text) // 2 :][:4]
    cut = talker.generate([9, 8, 7], replace(GREEDY, stop_sequences=(stop,)), seed=0)
    assert "".join(cut) == text[: text.index(stop)]
    assert cut.finish_reason == "stop_sequence"
    assert len(cut.tokens) < 24
    held = talker.generate([9, 8, 7], replace(GREEDY, stop_sequences=(text[-1] + "\n",)), seed=0)
    assert "".join(held) == text, "what only began like one comes at the end"


def test_pieces_are_the_first_text_at_once_and_all_the_rest_at_the_end_where_the_interval_is_long(
    talker: Engine,
) -> None:
    text = "".join(talker.generate([5], GREEDY, seed=0))
    passes, read = itertools.count(), threading.Event()

    def wait(*_: object) -> None:
        assert next(passes) != 9 or read.wait(60)

    hook = talker.model.model.get_input_embeddings().register_forward_pre_hook(wait)
    pieces = talker.generate([5], GREEDY, seed=0).pieces(interval=3600)
    first = next(pieces)
    read.set()
    rest = list(pieces)
    hook.remove()
    assert text.startswith(first)
    assert len(rest) <= 1
    assert first + "".join(rest) == text


def test_pieces_that_are_still_to_be_joined_when_the_engine_dies_come_before_its_error() -> None:
    def pieces() -> Iterator[str]:
        yield from "a" * 257
        raise EngineDown("the decode loop died")

    sent: list[str] = []
    with pytest.raises(EngineDown):
        sent.extend(joined(pieces()))
    assert "".join(sent) == "a" * 257


@pytest.mark.parametrize(("interval", "number"), [(0, 24), (1, 1)])
def test_what_has_come_before_it_is_read_is_a_piece_each_without_an_interval_and_one_with_it(
    talker: Engine, interval: float, number: int
) -> None:
    generation = talker.generate([5], replace(GREEDY, min_tokens=24), seed=0)
    until(lambda: generation.finish_reason)
    assert len(list(generation.pieces(interval))) == number


def test_the_deadline_ends_an_answer_with_what_there_is_and_before_any_text_with_an_error(
    talker: Engine,
) -> None:
    long = Sampling(max_tokens=200, min_tokens=200)
    running = talker.generate([5], long, seed=0)

    def overtake(*_: object) -> None:
        if len(running.tokens) == 9:
            running.deadline = time.monotonic()

    hook = talker.model.model.get_input_embeddings().register_forward_pre_hook(overtake)
    assert "".join(running)
    assert (running.finish_reason, len(running.tokens)) == ("deadline", 10)
    late = talker.generate([5], long, seed=0, deadline=time.monotonic())
    with pytest.raises(DeadlinePassed):
        list(late)
    until(lambda: not talker.busy)
    hook.remove()


def test_what_is_held_back_when_the_deadline_passes_is_text() -> None:
    how = Sampling(stop_sequences=("ab",))
    generation = Generation([5], how, 0, Detokenizer([b"a"]), lambda: None, deadline=0)
    generation.take(0, ends=False, full=False)
    generation.overdue()
    assert list(generation) == ["a"]
    assert generation.finish_reason == "deadline"


@pytest.mark.slow  # a boot
def test_a_caller_may_shorten_the_operator_s_deadline_and_not_lengthen_it(tmp_path: pathlib.Path) -> None:
    how: dict[str, Any] = {"adapter": "none", "device": "cpu", "slots": 1, "path": "eager"}
    service = Service(Settings(str(save_tiny(tmp_path)), **how))
    for operator, caller in ((300, 1e-9), (0, 1800)):
        service._deadline = operator
        with pytest.raises(DeadlinePassed):
            list(service.answer(Request("Bonjour", deadline_seconds=caller), lambda *_: None))


def test_runaway_repetition_ends_as_a_loop(started: Start) -> None:
    generation = started(saying({70: 1.0})).generate([5], replace(GREEDY, max_tokens=200), seed=0)
    assert "".join(generation)
    assert generation.finish_reason == "loop"
    assert len(generation.tokens) < 100


@pytest.fixture
def asleep(started: Start) -> Iterator[tuple[Engine, threading.Event]]:
    """An engine whose next step lasts until the event is set."""
    model, awake = tiny_model(), threading.Event()
    engine = started(model, slots=1)
    hook = model.model.norm.register_forward_hook(lambda *_: awake.wait() and None)
    yield engine, awake
    hook.remove()
    awake.set()


def test_a_stuck_loop_ends_waiting_requests_and_refuses_new_ones(
    asleep: tuple[Engine, threading.Event], caplog: pytest.LogCaptureFixture
) -> None:
    engine, awake = asleep
    stuck, waiting, later = (engine.generate([5], GREEDY, seed=0) for _ in range(3))
    engine._stall = 0.5
    with pytest.raises(EngineDown, match="no decode step"):
        list(stuck)
    assert not engine.healthy
    with pytest.raises(EngineDown):
        list(waiting)
    with pytest.raises(EngineDown):
        engine.generate([5], GREEDY, seed=0)
    assert caplog.text.count("the decode loop is stuck") == 1
    awake.set()
    engine.close()
    with pytest.raises(EngineDown, match="no decode step"):
        list(later)


def test_a_loop_that_does_not_end_fails_the_boot_and_no_other_path_is_tried(
    asleep: tuple[Engine, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, awake = asleep
    engine.generate([5], GREEDY, seed=0)
    until(lambda: not engine._waiting)  # it has begun
    monkeypatch.setattr(loop, "STALL", 0.1)

    def start(*_: object) -> Engine:
        assert not engine._closed, "another path is tried"
        engine.close()
        return engine

    with pytest.raises(EngineStuck):
        fastest(["graphs", "eager"], start)
    awake.set()
    engine._thread.join()


def test_a_process_that_was_paused_is_not_taken_for_a_stuck_one(
    asleep: tuple[Engine, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that sleeps in the middle of a step: the clock has advanced by an hour when it wakes."""
    engine, awake = asleep
    generation = engine.generate([5], GREEDY, seed=0)
    clock = time.monotonic
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: clock() + 3600)
        assert engine.fault() is None
        awake.set()
        list(generation)
        engine.close()


def test_a_long_prompt_is_read_in_small_parts_while_others_get_tokens(started: Start) -> None:
    engine, forwarded = started(talkative(tiny_model()), context=900), list[int]()

    def forward(_: object, given: tuple[Tensor]) -> None:
        if len(forwarded) == 5:
            engine.generate([6] * 500, replace(GREEDY, max_tokens=1), seed=0)
        forwarded.append(given[0].shape[1])

    hook = engine.model.model.get_input_embeddings().register_forward_pre_hook(forward)
    list(engine.generate([5], Sampling(max_tokens=60, min_tokens=60), seed=0))
    hook.remove()
    parts = [number for number, _ in itertools.groupby(forwarded) if number > 1]
    assert parts == [BESIDE] * 3 + [500 - 3 * BESIDE]  # passes with no step between them count once


def test_a_prompt_that_begins_with_the_longest_warm_prefix_prefills_the_rest_alone(started: Start) -> None:
    prefix = list(range(3, 63))
    engine, forwarded = started(prefixes=[prefix[:40], prefix]), list[int]()
    hook = engine.model.model.get_input_embeddings().register_forward_pre_hook(
        lambda _, given: forwarded.append(given[0].shape[1])
    )
    list(engine.generate([*prefix, 70, 71, 5], replace(GREEDY, max_tokens=1), seed=0))
    hook.remove()
    assert forwarded == [3]
