"""Isolation: whatever else is in the batch, an answer is the one that a fresh engine gives it alone."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snb.engine.generation import Generation
from snb.engine.loop import BESIDE, Engine
from snb.engine.paths import PATHS
from snb.engine.slots import SlotModel, Step
from snb.parameters import Sampling
from snb.philosophers import names, persona
from snb.prompt import ChatML
from tests.tiny import tiny_model, tiny_tokenizer
from tests.waiting import until

pytestmark = pytest.mark.slow  # many requests together, each compared with itself alone

Way = Callable[[SlotModel], Step]
"""How a decode step runs; the fixture `path` provides each."""
TOKENIZER = tiny_tokenizer().backend_tokenizer
PERSONAS = [ChatML(TOKENIZER).prefix(persona(name)) for name in names()]
CONTEXT = 2800
GREEDY = Sampling(max_tokens=24, temperature=0, repetition_penalty=1)
SAMPLED = replace(GREEDY, temperature=0.9)
PENALTIES: dict[str, Any] = {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.3}
MANNERS = [GREEDY, SAMPLED, replace(GREEDY, **PENALTIES), replace(SAMPLED, **PENALTIES, french=True)]
STOPPED = replace(SAMPLED, stop_sequences=("e", "on"))


@dataclass(frozen=True)
class Ask:
    """A request, and when it arrives and leaves, counted in forward passes of the model."""

    prompt: tuple[int, ...]
    sampling: Sampling
    seed: int = 0
    arrives: int = 0
    leaves: int | None = None
    """When it is canceled."""


Answer = tuple[str, tuple[int, ...], str]
"""Text, tokens and finish reason."""


def answer(generation: Generation) -> Answer:
    text = "".join(generation)
    return text, tuple(generation.tokens), generation.finish_reason


@contextmanager
def fresh(
    slots: int, prefixes: Sequence[list[int]] = (), path: Way | None = None, lag: int = 0
) -> Iterator[Engine]:
    """An engine on a model of its own, since a path may change the model."""
    with closing(Engine(tiny_model(), TOKENIZER, slots, CONTEXT, prefixes, path, lag=lag)) as engine:
        yield engine


@functools.cache
def alone(prompt: tuple[int, ...], sampling: Sampling, seed: int) -> Answer:
    """The answer of a cold engine that has never seen another request."""
    with fresh(slots=1) as engine:
        return answer(engine.generate(list(prompt), sampling, seed))


def together(engine: Engine, pace: Sequence[int], asks: Sequence[Ask]) -> list[Generation]:
    """Asks and cancels from within the forward passes, so that a schedule is the same in every run.

    `pace` is the prompt of a request that keeps the engine busy until all others have come and gone.
    """
    passes, generations = itertools.count(), dict[int, Generation]()

    def act(*_: object) -> None:
        now = next(passes)
        for index, ask in enumerate(asks):
            if ask.arrives == now:
                generations[index] = engine.generate(list(ask.prompt), ask.sampling, ask.seed)
            if ask.leaves == now:
                generations[index].cancel()

    steps = 2 + max(max(ask.arrives, ask.leaves or 0) for ask in asks)
    hook = engine.model.model.get_input_embeddings().register_forward_pre_hook(act)
    keeper = Sampling(max_tokens=steps, min_tokens=steps, temperature=0)
    assert answer(engine.generate(list(pace), keeper, seed=0)) == alone(tuple(pace), keeper, 0)
    hook.remove()
    return [generations[index] for index in range(len(asks))]


def agree(asks: Sequence[Ask], generations: Sequence[Generation]) -> None:
    """Asserts that each request got its own answer, or the beginning of it if it was canceled."""
    for ask, generation in zip(asks, generations, strict=True):
        own = alone(ask.prompt, ask.sampling, ask.seed)
        text, tokens, reason = answer(generation)
        left = ask.leaves is not None and reason == "canceled"
        assert (text, tokens, reason) == own or (left and tokens == own[1][: len(tokens)])


@pytest.mark.parametrize("lag", [0, 1])
def test_neighbours_canceled_while_read_or_answered_leave_nothing_behind(path: Way, lag: int) -> None:
    sampling = MANNERS[-1]
    endless = replace(sampling, max_tokens=200, min_tokens=200)
    reading = Ask(tuple([4, 5, 6] * 800), endless, seed=1, arrives=1, leaves=6)
    writing = Ask((*PERSONAS[0], 9, 8), endless, seed=2, arrives=1, leaves=40)
    stayers = [Ask((*PERSONAS[0], 7 + i), replace(sampling, max_tokens=60), seed=i) for i in range(2)]
    heirs = [Ask(tuple([20 + i] * (3 + i)), sampling, seed=i, arrives=7 + 17 * i) for i in range(4)]
    asks = [reading, *stayers, writing, *heirs]
    with fresh(5, PERSONAS, path, lag) as engine:
        generations = together(engine, [*PERSONAS[0], 5], asks)
        agree(asks, generations)
    assert BESIDE <= generations[0].cached < len(reading.prompt)
    assert not generations[0].tokens
    assert 5 < len(generations[3].tokens) < 200


SHORT = [tuple(range(3, 43)), tuple(range(100, 170)), ()]
"""Beginnings of the prompts of a random schedule; the first two may be warm."""


@st.composite
def schedules(draw: st.DrawFn) -> list[Ask]:
    """Up to eight requests that arrive at any time, of which about one in three is canceled at any time."""

    def ask() -> Ask:
        number, arrives = draw(st.integers(0, 11)), draw(st.integers(0, 30))
        stay = draw(st.none() | st.none() | st.integers(0, 30))
        manner = draw(st.sampled_from([*MANNERS, STOPPED]))
        sampling = replace(manner, max_tokens=draw(st.sampled_from([1, 9, 40])))
        prompt = (*SHORT[number % 3], *range(50 + 9 * number, 50 + 9 * number + [1, 4, 20, 90][number // 3]))
        return Ask(prompt, sampling, number, arrives, None if stay is None else arrives + stay)

    return [ask() for _ in range(draw(st.integers(1, 8)))]


@settings(max_examples=20)
@given(
    schedules(),
    st.sampled_from(["packed", "shared", "eager"]),
    st.integers(0, 2),
    st.sampled_from([16, 512]),
    st.integers(0, 1),
)
def test_any_schedule_gives_each_request_its_own_answer_and_leaves_nothing(
    asks: list[Ask], path: str, warm: int, chunk: int, lag: int
) -> None:
    """Takes seconds, for twenty schedules whose requests are each also answered alone."""
    with (
        pytest.MonkeyPatch.context() as patch,
        fresh(3, [list(p) for p in SHORT[:warm]], PATHS[path], lag) as engine,
    ):
        patch.setattr("snb.engine.loop.PREFILL_TOKENS", chunk)
        agree(asks, together(engine, [*SHORT[0], 5], asks))
        until(lambda: not engine.busy)
        assert engine.healthy
