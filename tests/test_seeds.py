"""Seeds through the real server: a request gives the same text alone and among others."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.waiting import accepted
from tools.serving.server import Server

pytestmark = pytest.mark.server
SAMPLED = {
    "user_message": "Suis-je libre ?",
    "philosopher": "kant",
    "max_tokens": 50,
    "min_tokens": 50,
    "temperature": 2,
    "top_p": 1,
    "top_k": 0,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.3,
    "frequency_penalty": 0.2,
}
"""So nearly uniform, whatever the model, that two seeds cannot agree on 50 tokens."""
KINDS: list[dict[str, Any]] = [
    {},
    {"philosopher": "spinoza", "temperature": 0.7, "top_k": 20, "top_p": 0.8},
    {"rag_context": "La durée.\n\nLe désir est l’essence de l’homme.", "presence_penalty": -0.5},
    {"user_message": "Que dois-je faire ? " * 9, "max_tokens": 80, "repetition_penalty": 1},
]


def ask(cog: Server, inputs: dict[str, Any]) -> dict[str, Any]:
    reply = accepted(lambda: httpx.post(f"{cog.url}/predictions", json={"input": inputs}, timeout=600))
    assert reply.raise_for_status().json()["status"] == "succeeded"
    return reply.json()  # type: ignore[no-any-return]


def answer(reply: dict[str, Any]) -> tuple[str, str, int]:
    metrics = reply["metrics"]
    return "".join(reply["output"]), metrics["finish_reason"], metrics["output_token_count"]


def test_each_of_eight_at_once_gives_the_text_that_it_gives_alone(cog: Server) -> None:
    asked: list[dict[str, Any]] = [{**SAMPLED, **KINDS[seed % 4], "seed": seed} for seed in range(8)]
    asked[0]["stop_sequences"] = [answer(ask(cog, asked[0]))[0][-40:-30]]
    alone = [answer(ask(cog, inputs)) for inputs in asked]
    assert alone[0][1] == "stop_sequence"
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda inputs: answer(ask(cog, inputs)), asked)) == alone


def test_zero_is_a_seed_and_without_one_the_metric_gives_the_text_again(cog: Server) -> None:
    zero, other, drawn = (ask(cog, {**SAMPLED, **seed}) for seed in ({"seed": 0}, {"seed": 1}, {}))
    assert zero["metrics"]["seed"] == 0
    assert len({answer(reply) for reply in (zero, other, drawn)}) == 3
    for reply in (zero, drawn):
        assert answer(ask(cog, {**SAMPLED, "seed": reply["metrics"]["seed"]})) == answer(reply)
