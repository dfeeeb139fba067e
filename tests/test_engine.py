"""The engine: the text of plain `generate`, for each of many at once, and clean ends."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from snb.card import PREFILL_TOKENS
from snb.engine.loop import Engine
from snb.engine.slots import SlotModel, Step
from snb.errors import BadInput, DeadlinePassed, EngineDown
from snb.parameters import Sampling
from tests.tiny import talkative, tiny_model
from tests.waiting import until

GREEDY = Sampling(max_tokens=24, temperature=0, repetition_penalty=1)
START = 1
"""<|im_start|>, the only token of the tiny vocabulary that is never drawn."""


def reference(model: Qwen2ForCausalLM, prompt: list[int], tokens: int, penalty: float = 1.0) -> list[int]:
    """Greedy tokens of plain `generate`."""
    ids = torch.tensor([prompt])
    options = {"max_new_tokens": tokens, "do_sample": False, "repetition_penalty": penalty}
    output = model.generate(ids, attention_mask=torch.ones_like(ids), suppress_tokens=[START], **options)
    return output[0, len(prompt) :].tolist()  # type: ignore[no-any-return]


def prompts(number: int, longest: int = 60) -> list[list[int]]:
    generator = torch.Generator().manual_seed(number)
    lengths = torch.randint(1, longest, (number,), generator=generator).tolist()
    return [torch.randint(3, 390, (n,), generator=generator).tolist() for n in lengths]


def test_one_request_gives_the_tokens_and_text_of_generate(
    engine: Engine, model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    [prompt] = prompts(1)
    generation = engine.generate(prompt, GREEDY, seed=0)
    text = "".join(generation)
    assert generation.tokens == reference(model, prompt, 24)
    # A character that is not whole at the end is dropped.
    assert tokenizer.decode(generation.tokens, skip_special_tokens=True) in (text, f"{text}\ufffd")


def test_more_requests_than_slots_each_give_what_they_give_alone(
    engine: Engine, model: Qwen2ForCausalLM
) -> None:
    asked = prompts(11)
    generations = [engine.generate(prompt, GREEDY, seed=0) for prompt in asked]
    for prompt, generation in zip(asked, generations, strict=True):
        list(generation)
        assert generation.tokens == reference(model, prompt, 24)


def test_a_prompt_longer_than_a_chunk_of_prefill_is_whole(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    engine = Engine(model, tokenizer.backend_tokenizer, slots=2, context=900)
    long, short = [5, 6, 7] * ((PREFILL_TOKENS + 200) // 3), [8, 9]
    generations = [engine.generate(prompt, GREEDY, seed=0) for prompt in (long, short, long)]
    for prompt, generation in zip((long, short, long), generations, strict=True):
        list(generation)
        assert generation.tokens == reference(model, prompt, 24)
    engine.close()


def test_a_row_used_before_by_a_longer_request_shows_nothing_of_it(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    engine = Engine(model, tokenizer.backend_tokenizer, slots=1, context=256)
    for prompt in ([4] * 200, [7, 8, 9], [4] * 100, [7, 8, 9]):
        generation = engine.generate(prompt, GREEDY, seed=0)
        list(generation)
        assert generation.tokens == reference(model, prompt, 24)
    engine.close()


def test_callers_in_many_threads_are_served(engine: Engine, model: Qwen2ForCausalLM) -> None:
    asked = prompts(12)
    answers: dict[int, list[int]] = {}

    def ask(index: int) -> None:
        generation = engine.generate(asked[index], GREEDY, seed=0)
        list(generation)
        answers[index] = generation.tokens

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[index] for index in range(12)] == [reference(model, prompt, 24) for prompt in asked]


def test_the_same_seed_gives_the_same_tokens_alone_and_in_company(engine: Engine) -> None:
    sampling = Sampling(max_tokens=24, min_tokens=24, temperature=2, top_k=0, top_p=1)
    prompt, *others = prompts(6)
    alone = engine.generate(prompt, sampling, seed=42)
    list(alone)
    company = [engine.generate(p, sampling, seed=s) for s, p in enumerate([*others, prompt])]
    again, other = engine.generate(prompt, sampling, seed=42), engine.generate(prompt, sampling, seed=43)
    for generation in [*company, again, other]:
        list(generation)
    assert again.tokens == alone.tokens != other.tokens


@pytest.mark.parametrize(
    ("named", "end"),
    [([2, 0], 0), ([2, 0], 2), (0, 2), (2, 0), (None, 0), (None, 2), (70, 70), ([70, -1, 391], 2)],
)
def test_each_end_token_ends_an_answer_after_min_tokens_whatever_the_model_s_files_name(
    named: int | list[int] | None, end: int, tokenizer: PreTrainedTokenizerFast
) -> None:
    """At every position `end` is the likeliest token, and 80 comes next."""
    model = tiny_model(seed=3, eos_token_id=named)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[end] = 1.0
        model.lm_head.weight[80] = 0.5
    model.model.norm.register_forward_hook(lambda _, __, output: torch.ones_like(output))
    engine = Engine(model, tokenizer.backend_tokenizer, slots=1, context=64)
    generation = engine.generate([5], Sampling(max_tokens=9, min_tokens=3, temperature=0), seed=0)
    assert "".join(generation) == 3 * tokenizer.decode([80])
    assert (generation.finish_reason, generation.tokens) == ("stop", [80, 80, 80, end])
    engine.close()


def test_max_tokens_and_the_context_end_an_answer_as_length(engine: Engine) -> None:
    short = engine.generate([5, 6], replace(GREEDY, max_tokens=3, min_tokens=3), seed=0)
    list(short)
    assert (len(short.tokens), short.finish_reason) == (3, "length")
    long = engine.generate([5] * 250, replace(GREEDY, max_tokens=50, min_tokens=50), seed=0)
    list(long)
    assert (len(long.tokens), long.finish_reason) == (6, "length")


@pytest.mark.parametrize("prompt", [[], [-1], [391], [5] * 256])
def test_bad_ids_are_refused_and_disturb_nobody(engine: Engine, prompt: list[int]) -> None:
    running = engine.generate([5], GREEDY, seed=0)
    with pytest.raises(BadInput):
        engine.generate(prompt, GREEDY, seed=0)
    list(running)
    assert running.finish_reason in ("stop", "length")
    assert engine.healthy


def test_a_loop_that_dies_ends_every_request_with_an_error_and_refuses_new_ones(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = tiny_model(seed=5)
    engine = Engine(model, tokenizer.backend_tokenizer, slots=1, context=64)
    model.model.norm.register_forward_hook(lambda *_: 1 / 0)
    generations = [engine.generate([5], GREEDY, seed=0)]
    with pytest.raises(EngineDown):
        list(generations[0])
    assert not engine.healthy
    with pytest.raises(EngineDown):
        engine.generate([5], GREEDY, seed=0)


def test_a_closed_engine_refuses_and_leaves_no_thread(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    before = set(threading.enumerate())
    engine = Engine(model, tokenizer.backend_tokenizer, slots=1, context=64)
    engine.close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(EngineDown):
        engine.generate([5], GREEDY, seed=0)


@pytest.mark.parametrize("penalty", [1.3, 0.8])
def test_the_repetition_penalty_is_that_of_transformers(
    engine: Engine, model: Qwen2ForCausalLM, penalty: float
) -> None:
    sampling = Sampling(max_tokens=24, temperature=0, repetition_penalty=penalty)
    asked = prompts(5)
    generations = [engine.generate(prompt, sampling, seed=0) for prompt in asked]
    plain = engine.generate(asked[0], GREEDY, seed=0)
    for prompt, generation in zip(asked, generations, strict=True):
        list(generation)
        assert generation.tokens == reference(model, prompt, 24, penalty)
    list(plain)
    assert plain.tokens == reference(model, asked[0], 24)


def test_presence_and_frequency_penalties_count_the_answer_alone(engine: Engine) -> None:
    """Followed by hand over the kept scores: subtracted once, and once for each time."""
    sampling = Sampling(
        max_tokens=24,
        min_tokens=24,
        temperature=0,
        repetition_penalty=1,
        presence_penalty=2,
        frequency_penalty=0.5,
    )
    generation = engine.generate([5] * 20, sampling, seed=0, keep_scores=True)
    list(generation)
    said = torch.zeros(391)
    for token, kept in zip(generation.tokens, generation.scores or [], strict=True):
        scores = kept.clone()
        scores[[START, 0, 2]] = -torch.inf  # the end tokens, until min_tokens
        assert token == (scores - 2 * (said > 0) - 0.5 * said).argmax()
        said[token] += 1


def test_min_tokens_keeps_the_model_from_ending(engine: Engine) -> None:
    for seed in range(20):
        sampling = Sampling(max_tokens=40, min_tokens=30, temperature=2, top_k=0, top_p=1)
        generation = engine.generate([5], sampling, seed=seed)
        list(generation)
        assert len(generation.tokens) >= 30


@pytest.fixture
def talker(tokenizer: PreTrainedTokenizerFast) -> Iterator[Engine]:
    """An engine whose every token is a piece of text."""
    engine = Engine(talkative(tiny_model()), tokenizer.backend_tokenizer, slots=2, context=256)
    yield engine
    engine.close()


def test_a_stop_string_cuts_the_text_and_ends_decoding_at_once(talker: Engine) -> None:
    whole = talker.generate([9, 8, 7], GREEDY, seed=0)
    text = "".join(whole)
    stop = text[len(text) // 2 :][:4]
    cut = talker.generate([9, 8, 7], replace(GREEDY, stop_sequences=(stop,)), seed=0)
    assert "".join(cut) == text[: text.index(stop)]
    assert cut.finish_reason == "stop_sequence"
    assert len(cut.tokens) < 24


def test_a_canceled_request_frees_its_row_and_its_neighbours_give_what_they_give_alone(
    engine: Engine, model: Qwen2ForCausalLM
) -> None:
    asked = prompts(7)
    long = Sampling(max_tokens=200, min_tokens=200)
    doomed = [engine.generate(prompt, long, seed=1) for prompt in asked[:3]]
    next(iter(doomed[0]))
    neighbours = [engine.generate(prompt, GREEDY, seed=0) for prompt in asked[3:]]
    for generation in doomed:
        generation.cancel()
    for prompt, generation in zip(asked[3:], neighbours, strict=True):
        list(generation)
        assert generation.tokens == reference(model, prompt, 24)
    for generation in doomed:
        list(generation)
        assert generation.finish_reason == "canceled"
        assert len(generation.tokens) < 200
    until(lambda: engine.running == 0)


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
    until(lambda: talker.running == 0)
    hook.remove()


def test_runaway_repetition_ends_as_a_loop(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model(seed=3)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[70] = 1.0
    model.model.norm.register_forward_hook(lambda _, __, output: torch.ones_like(output))
    engine = Engine(model, tokenizer.backend_tokenizer, slots=1, context=256)
    generation = engine.generate([5], replace(GREEDY, max_tokens=200), seed=0)
    assert "".join(generation)
    assert generation.finish_reason == "loop"
    assert len(generation.tokens) < 100
    engine.close()


def test_a_stuck_loop_ends_waiting_requests_and_refuses_new_ones(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model(seed=5)
    engine = Engine(model, tokenizer.backend_tokenizer, slots=1, context=64, stall=0.5)
    released = threading.Event()
    hook = model.model.norm.register_forward_hook(lambda *_: released.wait() and None)
    stuck, waiting = (engine.generate([5], GREEDY, seed=0) for _ in range(2))
    with pytest.raises(EngineDown, match="no decode step"):
        list(stuck)
    assert not engine.healthy
    with pytest.raises(EngineDown):
        list(waiting)
    with pytest.raises(EngineDown):
        engine.generate([5], GREEDY, seed=0)
    hook.remove()
    released.set()
    engine.close()


def test_a_warm_prefix_gives_the_same_tokens_and_saves_its_prefill(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, path: Callable[[SlotModel], Step]
) -> None:
    prefixes = [list(range(3, 63)), list(range(3, 33)), list(range(200, 260))]
    engine = Engine(model, tokenizer.backend_tokenizer, slots=3, context=256, prefixes=prefixes, path=path)
    asked = [[*prefix, 70, 71, i] for i, prefix in enumerate(prefixes)] + [prefixes[1], [300, 301]]
    generations = [engine.generate(prompt, GREEDY, seed=0) for prompt in asked]
    for prompt, generation in zip(asked, generations, strict=True):
        list(generation)
        assert generation.tokens == reference(model, prompt, 24)
    forwarded: list[int] = []
    hook = model.model.register_forward_pre_hook(
        lambda *args: forwarded.append(args[2]["input_ids"].shape[1]), with_kwargs=True
    )
    list(engine.generate(asked[0], replace(GREEDY, max_tokens=1), seed=0))
    assert forwarded == [3]
    hook.remove()
    engine.close()


def test_rows_that_share_prefixes_give_what_they_give_alone_as_others_come_and_go(
    tokenizer: PreTrainedTokenizerFast, path: Callable[[SlotModel], Step]
) -> None:
    """Long prefixes, prompts in chunks, no prefix at all, and rows moved when the first ones end."""
    model = tiny_model()
    prefixes = [[3 + i % 380 for i in range(first, first + 300)] for first in (0, 100)]
    engine = Engine(model, tokenizer.backend_tokenizer, 4, 900, prefixes, path)
    chunked = [7, 8, 9, 10] * ((PREFILL_TOKENS + 40) // 4)
    asked = [[*prefixes[0], 5], [*prefixes[1], 6, 7], [9, 9], [*prefixes[0], *chunked], [*prefixes[1], 8]]
    lengths = [4, 24, 24, 24, 24]
    generations = [
        engine.generate(prompt, replace(GREEDY, max_tokens=length), seed=0)
        for prompt, length in zip(asked, lengths, strict=True)
    ]
    for prompt, length, generation in zip(asked, lengths, generations, strict=True):
        list(generation)
        assert generation.tokens == reference(model, prompt, length)
    engine.close()


def test_a_process_that_was_paused_is_not_taken_for_a_stuck_one(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that sleeps in the middle of a step: the clock has gone on by an hour when it wakes."""
    model, awake = tiny_model(seed=5), threading.Event()
    engine = Engine(model, tokenizer.backend_tokenizer, slots=1, context=64, stall=60)
    hook = model.model.norm.register_forward_hook(lambda *_: awake.wait() and None)
    generation = engine.generate([5], GREEDY, seed=0)
    clock = time.monotonic
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: clock() + 3600)
        assert engine.fault() is None
        awake.set()
        list(generation)
        engine.close()
    hook.remove()
