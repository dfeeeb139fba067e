"""A real Gradio app with the existing Space's `chat_function(message, history)`, before a real Cog server.

Its reply is `["", [[question, answer], …]]`, and the answer ends with the Space's `*[Contexte: …]*`. As a
program, it starts the Cog server too and listens on PORT, which `tools.serving.server.Server` sets.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["no_proxy"] = "127.0.0.1"  # Gradio 6.31.0 would ask a school's proxy whether the app is up

import gradio as gr

from tools.endpoints.endpoint import Busy
from tools.serving.server import Server

SETTINGS: dict[str, Any] = {"system_prompt": "Réponds en français.", "max_tokens": 24, "seed": 7}
"""Inputs that the Space sends to its model with every question."""


def asked(cog: Server, message: str) -> Iterator[tuple[str, Any]]:
    """The server's events; a server that says it is full is asked again, up to 50 times.

    coglet 0.23.1 also says so to one of two requests that come at once: it tries a lock and does not wait.
    """
    for _ in range(50):
        with contextlib.suppress(Busy):
            yield from cog.stream(**SETTINGS, user_message=message[-4000:])
            return
        time.sleep(0.1)
    raise gr.Error("Le modèle est occupé.")


def app(cog: Server) -> gr.Blocks:

    def chat_function(message: str, history: list[list[str]]) -> Iterator[tuple[str, list[list[str]]]]:
        answer = ""
        for event, data in asked(cog, message):
            if event == "output":
                answer += data["chunk"]
                yield "", [*history, [message, answer]]
            elif event == "error" or data.get("status") == "failed":
                raise gr.Error("Le modèle n’a pas répondu.")
        yield "", [*history, [message, f"{answer}\n\n*[Contexte: {len(history)} tours]*"]]

    blocks = gr.Blocks()
    with blocks:
        places = [gr.Textbox(), gr.JSON()]
        gr.Button().click(chat_function, places, places, api_name="chat_function")
    blocks.queue(default_concurrency_limit=40)
    return blocks


@contextlib.contextmanager
def old_space(cog: Server, port: int | None = None) -> Iterator[str]:
    """Serves the app until the block ends; yields its URL."""
    blocks = app(cog)
    # With `_frontend` Gradio 6.31.0 fetches its own page and gives up after 3 s, too soon on a busy machine.
    _, url, _ = blocks.launch(
        server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True, _frontend=False
    )
    try:
        yield url.rstrip("/")
    finally:
        blocks.close(verbose=False)


def main() -> None:
    with Server({}) as cog:
        cog.wait()
        with old_space(cog, int(os.environ["PORT"])):
            cog.join()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that what was started ends too
    main()
