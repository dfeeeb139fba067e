"""Seeds under load: a request gives the same text alone and among fifteen others, through the real server."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import httpx
import pytest

from tools.serving.server import Server

pytestmark = pytest.mark.server
SAMPLED = {
    "user_message": "Suis-je libre ?",
    "philosopher": "kant",
    "max_tokens": 200,
    "min_tokens": 200,
    "temperature": 2,
    "top_p": 1,
    "top_k": 0,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.3,
    "frequency_penalty": 0.2,
}
"""So nearly uniform, whatever the model, that two seeds cannot agree on 200 tokens."""


def ask(cog: Server, inputs: dict[str, Any], client: httpx.Client | None = None) -> dict[str, Any]:
    post = client.post if client else httpx.post
    while True:
        reply = post(f"{cog.url}/predictions", json={"input": inputs}, timeout=120)
        if reply.status_code != 409:  # the server is full as long as it ends what other tests have left
            break
        time.sleep(0.2)
    reply.raise_for_status()
    assert reply.json()["status"] == "succeeded"
    return reply.json()  # type: ignore[no-any-return]


def text(reply: dict[str, Any]) -> str:
    return "".join(reply["output"])


def sixteen() -> list[dict[str, Any]]:
    """Requests that are each their own in every setting; number 0 has seed 0."""
    dice = random.Random(16)
    words = ["Suis-je libre ?", "Qu’est-ce que le temps ?", "Que dois-je faire ?", "Pourquoi désirer ?"]
    return [
        {
            "seed": seed,
            "user_message": dice.choice(words) * dice.randint(1, 9),
            "philosopher": dice.choice(["spinoza", "bergson", "kant"]),
            "rag_context": dice.choice(
                ["", "La durée.\n\nLe désir est l’essence de l’homme.", "Agis. " * 60]
            ),
            "max_tokens": (tokens := dice.randint(200, 350)),
            "min_tokens": tokens - 20,
            "temperature": dice.choice([0.7, 0.8, 1.0, 1.3]),
            "top_p": dice.choice([0.8, 0.95, 1]),
            "top_k": dice.choice([0, 20, 50]),
            "repetition_penalty": dice.choice([1, 1.05, 1.3]),
            "presence_penalty": dice.choice([0, 0.5, -0.5]),
            "frequency_penalty": dice.choice([0, 0.3]),
        }
        for seed in range(16)
    ]


def test_each_of_sixteen_at_once_gives_the_text_that_it_gives_alone(cog: Server, cog_log: Path) -> None:
    asked = sixteen()
    for inputs in asked[::3]:
        inputs["stop_sequences"] = [text(ask(cog, inputs))[-40:-30]]
    alone = [ask(cog, inputs) for inputs in asked]
    assert "stop_sequence" in {reply["metrics"]["finish_reason"] for reply in alone}
    written = len(cog_log.read_text())
    with ThreadPoolExecutor(16) as pool, httpx.Client() as client:
        together = list(pool.map(lambda inputs: ask(cog, inputs, client), asked))
    assert most_at_once(cog_log.read_text()[written:]) > 1
    assert [text(reply) for reply in together] == [text(reply) for reply in alone]
    assert [finish(reply) for reply in together] == [finish(reply) for reply in alone]


def most_at_once(log: str) -> int:
    """The most requests that had started and not ended, at any time that the log tells of."""
    steps = [("Starting prediction" in line) - (' tokens"' in line) for line in log.splitlines()]
    return max(accumulate(steps))


def finish(reply: dict[str, Any]) -> tuple[str, int]:
    return reply["metrics"]["finish_reason"], reply["metrics"]["output_token_count"]


def test_zero_is_a_seed(cog: Server) -> None:
    first, second, other = (ask(cog, {**SAMPLED, "seed": seed}) for seed in (0, 0, 1))
    assert text(first) == text(second) != text(other)
    assert first["metrics"]["seed"] == 0


def test_without_a_seed_the_metric_gives_the_text_again(cog: Server) -> None:
    first, second = ask(cog, SAMPLED), ask(cog, SAMPLED)
    assert text(first) != text(second)
    for reply in (first, second):
        assert text(ask(cog, {**SAMPLED, "seed": reply["metrics"]["seed"]})) == text(reply)
