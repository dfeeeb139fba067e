"""The endpoints: `answer`, with the inputs of predict.py, and the `chat_…` functions of the first Space.

Nothing is kept between two calls: callers send the history along.
"""

import asyncio
import contextlib
import inspect
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import gradio as gr
from backend import Backends
from message import answered, continued, turns, unpacked
from refusal import Refusal
from visitor import turn
from words import WAITING

from snb.errors import SNBError
from snb.request import Request

log = logging.getLogger("space")

BEAT = 1.0
"""Seconds without text after which "" is yielded. Gradio checks whether the caller is still there only when
an endpoint yields, so without it a tab closed during a cold start would be answered to the end."""

CUTS = ("length", "deadline", "loop")
"""Values of `finish_reason` for an answer that was cut off: see snb/engine/generation.py."""

ECHO = 256 * 1024
"""Characters of history a second, at most, that `chat_function` repeats: each of its events holds it all."""

Endpoint = Callable[..., AsyncIterator[Any]]


def answer_of(backends: Backends) -> Endpoint:
    """The endpoint `answer`."""

    async def answer(
        user_message: str,
        philosopher: str = "spinoza",
        rag_context: str = "",
        history: list[dict[str, str]] = [],  # noqa: B006 - Gradio reads defaults from the signature
        system_prompt: str = "",
        max_tokens: int = 256,
        min_tokens: int = 0,
        temperature: float = 0.7,
        top_p: float = 0.8,
        top_k: int = 20,
        repetition_penalty: float = 1.05,
        presence_penalty: float = 0,
        frequency_penalty: float = 0,
        stop_sequences: list[str] = [],  # noqa: B006
        seed: int | None = None,
        deadline_seconds: float = 0,
    ) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """Un philosophe répond à un élève de Terminale. Streams the whole text so far; metrics at the end.

        Args:
            user_message: What the pupil says (message de l’élève), preferably in French; 1-4,000 characters.
            philosopher: Who answers: spinoza, bergson or kant. Ignored when system_prompt is given.
            rag_context: Passages to draw on (extraits, cours), between blank lines; up to 200,000 characters.
            history: Earlier turns, oldest first, each {'role': 'user' or 'assistant', 'content': '…'}.
            system_prompt: Replaces the philosopher's own persona (consigne). Empty keeps the persona.
            max_tokens: Longest answer, in tokens: 1 to 2048. 256 is about 160 words.
            min_tokens: Shortest answer, in tokens: 0 to 2048, at most max_tokens.
            temperature: How freely words are chosen: 0 to 2; 0 always takes the likeliest.
            top_p: Chooses only among the likeliest tokens whose probabilities add up to this: 0 to 1.
            top_k: Chooses only among this many likeliest tokens: 0 to 1000; 0 switches it off.
            repetition_penalty: Above 1, tokens that have been used become less likely: 0.5 to 2.
            presence_penalty: Taken from the score of every token that the answer holds already: -2 to 2.
            frequency_penalty: Taken from a token's score for each time that the answer holds it: -2 to 2.
            stop_sequences: Texts that end the answer just before they would appear. At most 16.
            seed: The same seed and inputs give the same answer. Leave it out for a random one.
            deadline_seconds: Seconds after which the answer ends with what there is; 0: the server's limit.
        """
        inputs = {name: value for name, value in locals().items() if name != "backends"}
        text, metrics = "", dict[str, Any]()
        async for piece in streamed(backends, inputs, metrics):
            text += piece
            yield text, {}
        yield text, metrics

    return published(answer, str, dict[str, Any])


def chat_function_of(backends: Backends, name: str, philosopher: str) -> Endpoint:
    """The first Space's `chat_function`, here as `name`; `philosopher` answers if the message names none."""

    async def chat_function(message: str, history: list[Any]) -> AsyncIterator[tuple[str, list[Any]]]:
        """Le point d’entrée du premier Space : ["", [[question, réponse], …]].

        Args:
            message: The question, or persona, passages and question as one text, as callSNB packs them.
            history: Earlier exchanges, oldest first: each [question, answer], or messages as Gradio keeps
                them, which come back as such; [] for none.
        """
        try:
            earlier = answered(history)
            inputs = {"philosopher": philosopher, **unpacked(message), "history": turns(earlier)}
        except Refusal as refusal:
            raise refusal.shown() from None
        text, due, reply = "", 0.0, continued(earlier, message)
        pause = len(json.dumps(history)) / ECHO
        async for piece in streamed(backends, inputs, {}):
            text += piece
            if time.monotonic() >= due:
                due = time.monotonic() + pause
                yield "", reply(text)
        yield "", reply(text)

    chat_function.__name__ = name
    return published(chat_function, str, list[Any])


def published(function: Endpoint, *returns: Any) -> Endpoint:
    """Tells Gradio the types of a generator's outputs.

    gr.api (6.31.0) takes them from the return annotation and does not look into AsyncIterator, so that two
    outputs would be one. Delete this when it does.
    """
    signature = inspect.signature(function).replace(return_annotation=tuple[returns])  # type: ignore[valid-type]
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


async def streamed(
    backends: Backends, inputs: dict[str, Any], metrics: dict[str, Any]
) -> AsyncGenerator[str, None]:
    """The pieces of an answer, and "" as signs of life; fills in `metrics`.

    Raises:
        gr.Error: a refusal, which Gradio sends to the caller as an error.
    """
    try:
        request = checked(inputs)
        with turn():
            async with contextlib.aclosing(with_beats(backends.ask(request, teller(metrics)))) as pieces:
                async for piece in pieces:
                    yield piece
    except Refusal as refusal:
        if refusal.code in ("UNAUTHORIZED", "BACKEND_FAILED"):  # the others are the visitor's doing or pass
            log.info("no answer: %s", refusal)
        raise refusal.shown() from None


def checked(inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs, within the bounds of `snb.request`; a None is left out, since Cog refuses null.

    Raises:
        Refusal: with every fault found.
    """
    given = {name: value for name, value in inputs.items() if value is not None}
    given["history"] = turns(given.get("history", []))
    try:
        Request.checked(**given)
    except SNBError as error:
        raise Refusal("BAD_INPUT", "; ".join(error.faults)) from None
    except (TypeError, ValueError, AttributeError, OverflowError):
        raise Refusal("BAD_INPUT", "an input is missing or of the wrong type") from None
    return given


def teller(metrics: dict[str, Any]) -> Callable[..., None]:
    """Returns the `say` of an answer: it fills in `metrics` and shows each notice once, until another comes.

    Only Gradio's own event stream carries notices: /call has answers and errors and nothing else.
    """
    told = ""

    def say(name: str, value: Any = None) -> None:
        nonlocal told
        if value is not None:
            metrics[name] = value
        code = name if value is None else worth(name, value)
        if code not in ("", told):
            told = code
            gr.Info(WAITING.get(code, code), title=code, duration=None)

    return say


def worth(name: str, value: Any) -> str:
    """The code of the notice that a metric calls for, since it limits the answer's value; else ""."""
    if name == "notice":
        return "STANDIN"
    if name == "finish_reason" and value in CUTS:
        return str(value).upper()
    return f"UNREAD {value}" if name == "rag_context_truncated_tokens" and value else ""


async def with_beats(pieces: AsyncGenerator[str, None], beat: float = BEAT) -> AsyncGenerator[str, None]:
    """The pieces as they come, joined if they came together, and "" after each `beat` seconds without any."""
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def pump() -> None:
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                queue.put_nowait(piece)

    # One task owns the connection throughout: Gradio closes an endpoint from another task than it ran in.
    task = asyncio.create_task(pump())
    try:
        while not (task.done() and queue.empty()):
            waiting = asyncio.create_task(queue.get())
            await asyncio.wait([task, waiting], timeout=beat, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
            text = waiting.result() if waiting.done() and not waiting.cancelled() else ""
            while not queue.empty():
                text += queue.get_nowait()
            if text or not task.done():
                yield text
        task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
