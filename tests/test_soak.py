"""A short soak: many requests that end in every way, and nothing is left behind or mixed up."""

import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from snb.engine.generation import Generation
from snb.engine.loop import Engine
from snb.engine.slots import SlotModel, Step
from snb.errors import BadInput
from snb.parameters import Sampling
from tests.tiny import tiny_model
from tests.waiting import until

REQUESTS = int(os.environ.get("SOAK_REQUESTS", "150"))
"""SOAK_REQUESTS=2000 is the long form."""
PREFIXES = [list(range(3, 43)), list(range(100, 170))]


def plan(number: int) -> tuple[list[int], Sampling, int]:
    """A request that is its own in every way: prompt, settings, seed."""
    dice = random.Random(number)
    prompt = [*dice.choice([*PREFIXES, []]), *(dice.randrange(3, 390) for _ in range(dice.randint(1, 40)))]
    sampling = Sampling(
        max_tokens=dice.randint(1, 60),
        temperature=dice.choice([0, 0.7, 1.5]),
        top_p=dice.choice([1, 0.8]),
        top_k=dice.choice([0, 20]),
        repetition_penalty=dice.choice([1, 1.05, 1.3]),
        presence_penalty=dice.choice([0, 0.5]),
        stop_sequences=dice.choice([(), ("e",), ("on", "é")]),
        french=dice.random() < 0.5,
    )
    return prompt, sampling, dice.randrange(2**32)


def ask(engine: Engine, number: int, answers: dict[int, tuple[str, Generation]]) -> None:
    """Some callers cancel, some stop listening, some send nonsense; the others get their answer."""
    dice = random.Random(-number)
    prompt, sampling, seed = plan(number)
    if dice.random() < 0.1:
        with pytest.raises(BadInput):
            engine.generate([10**6], sampling, seed)
        return
    generation = engine.generate(prompt, sampling, seed)
    fate = dice.random()
    if fate < 0.15:
        generation.cancel()
        list(generation)
    elif fate < 0.3:
        next(iter(generation), None)
        generation.cancel()
    else:
        answers[number] = "".join(generation), generation


@pytest.mark.slow
def test_every_answer_is_its_own_and_nothing_is_left(
    started: Callable[..., Engine], path: Callable[[SlotModel], Step]
) -> None:
    """Seconds, for the number of requests, each of which is then asked once more, alone."""
    engine = started(tiny_model(), slots=6, prefixes=PREFIXES, path=path)
    before = set(threading.enumerate())
    answers: dict[int, tuple[str, Generation]] = {}
    with ThreadPoolExecutor(12) as pupils:
        list(pupils.map(lambda number: ask(engine, number, answers), range(REQUESTS)))
    assert len(answers) > REQUESTS // 3
    for number, (text, generation) in answers.items():
        alone = engine.generate(*plan(number))
        assert (text, generation.finish_reason) == ("".join(alone), alone.finish_reason), f"request {number}"
    until(lambda: engine.running == 0)
    assert engine.healthy
    assert set(threading.enumerate()) <= before
