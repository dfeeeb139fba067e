"""Servers to measure: the one that this package starts, and remote ones."""

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from tools.endpoints.cog_endpoint import Cog
from tools.endpoints.endpoint import Endpoint, Failed, Http
from tools.endpoints.gradio_endpoint import Gradio, hub_token, is_gradio
from tools.endpoints.openai_endpoint import ChatCompletions
from tools.endpoints.replicate_endpoint import Replicate
from tools.serving.server import Server

OURS = "ours"
HOST = re.compile(r"(?:[\w-]+(?:\.[\w-]+)+(?::\d+)?|[\w-]+:\d+)(?:/\S*)?")
"""An address without its scheme: a dot or a port before the first slash, which no owner's name has."""
MODEL = re.compile(r"(?:replicate:)?((?:deployments/)?[\w.-]+/[\w.-]+(?::\w+)?)")
"""A model or a deployment on Replicate, as people write it."""


@dataclass(frozen=True)
class Started:
    endpoint: Endpoint
    since: float | None = None
    """When its process was started, in monotonic seconds; None for a remote one."""


@contextlib.contextmanager
def ours(settings: Mapping[str, str], log: IO[str]) -> Iterator[Started]:
    since = time.monotonic()
    with Server(settings, log=log) as server:
        server.wait()
        yield Started(Cog(OURS, server.url), since)


@contextlib.contextmanager
def remote(address: str) -> Iterator[Started]:
    """A server that is already running; see `reached` for `address`."""
    yield Started(reached(address))


def url_of(address: str) -> str:
    """The URL of a host as people write it, with https unless they say otherwise, as the client takes it.

    Empty if `address` is not a host; it may be a model on Replicate.
    """
    address = f"https://{address}" if HOST.fullmatch(address) else address
    return address.rstrip("/") if re.fullmatch(r"https?://[^\s\[]\S*", address) else ""


def reached(address: str) -> Cog | Gradio | Replicate | ChatCompletions:
    """The endpoint at an address: of a Cog server, a Gradio app, or a model at a provider.

    On Replicate: `owner/name`, also with `:version` or after `deployments/` or `replicate:`, with
    REPLICATE_API_TOKEN. For OpenAI's API: `openai:https://host/v1#model`, with SNB_OPENAI_TOKEN.

    Raises:
        Failed: Replicate does not answer, the address is none of these, or there is no token.
    """
    if url := url_of(address):
        return Gradio(url, url) if is_gradio(Http(url, key=hub_token(url))) else Cog(url, url)
    if address.startswith("openai:"):
        base, _, model = address.removeprefix("openai:").partition("#")
        if not (model and url_of(base)):
            raise Failed(f"{address} is no provider and model: write openai:https://HOST/v1#MODEL")
        return ChatCompletions(address, url_of(base), model, {}, os.environ.get("SNB_OPENAI_TOKEN", ""))
    named = MODEL.fullmatch(address)
    if not named:
        raise Failed(f"{address} is neither a host (https://…) nor owner/name on Replicate")
    if not (token := os.environ.get("REPLICATE_API_TOKEN")):
        raise Failed("set REPLICATE_API_TOKEN to ask Replicate")
    return Replicate(named[1], token, os.environ.get("REPLICATE_BASE_URL"))
