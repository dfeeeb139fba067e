"""The backends that answer: those in SNB_BACKEND_URL, in order, or the engine in this process."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from cog_backend import Cog
from refusal import WAITS, Refusal
from replicate_backend import Replicate
from visitor import came

PATIENCE = 600.0
"""Seconds that a question waits for a model that is starting or full; a boot of the 14B takes minutes."""
PAUSE = 2.0
"""Seconds, at most, before all are asked again, unless one asks for more."""
SHORTEST = 0.2
"""The shortest deadline to pass on, in seconds: 0 would mean the server's own limit."""


class Backend(Protocol):
    """Something that answers, any number of questions at once."""

    def ask(self, inputs: dict[str, Any], say: Callable[..., None]) -> AsyncGenerator[str, None]:
        """One answer, piece by piece; closing the iterator cancels it.

        Args:
            inputs: checked, by the names of predict.py; no value is None.
            say: called with COLD_START or BUSY while the answer has to wait, and with the name and the value
                of each metric of the answer.

        Raises:
            Refusal: at any point of the answer.
        """
        ...

    async def close(self) -> None:
        """Ends what is running."""
        ...


class Backends:
    """Several backends, in order of preference; the next is asked only if no text has come yet."""

    def __init__(self, backends: Sequence[Backend], patience: float = PATIENCE) -> None:
        self._backends, self._patience = backends, patience

    async def ask(self, inputs: dict[str, Any], say: Callable[..., None]) -> AsyncGenerator[str, None]:
        """See `Backend`. While any is starting or full, all are retried until patience or deadline ends."""
        began, deadline = came(), inputs.get("deadline_seconds")
        end = began + min(self._patience, deadline or self._patience)
        while True:
            refusals: list[Refusal] = []
            if deadline:  # it counts from the caller's arrival here
                inputs = {**inputs, "deadline_seconds": max(SHORTEST, began + deadline - time.monotonic())}
            for backend in self._backends:
                spoke = False
                try:
                    async with contextlib.aclosing(backend.ask(inputs, say)) as pieces:
                        async for piece in pieces:
                            spoke = spoke or bool(piece)
                            yield piece
                    return
                except Refusal as refusal:
                    if spoke or refusal.final:
                        raise
                    refusals.append(refusal)
            await self._wait(refusals, end, say)

    async def _wait(self, refusals: list[Refusal], end: float, say: Callable[..., None]) -> None:
        """Sleeps until all are to be asked again; raises a refusal if that is pointless."""
        waiting = next((refusal for refusal in refusals if refusal.code in WAITS), None)
        if not waiting:
            raise refusals[-1]
        # Jitter, so that thirty visitors who found a backend full do not all come back at once.
        pause = max(waiting.retry_after, PAUSE * random.uniform(0.5, 1))
        if time.monotonic() + pause > end:
            raise waiting
        say(waiting.code)
        await asyncio.sleep(pause)

    async def close(self) -> None:
        """Ends what is running."""
        for backend in self._backends:
            await backend.close()


def configured(environ: Mapping[str, str], visitors: int) -> Backends:
    """The backends in SNB_BACKEND_URL, else the engine, which takes `visitors` questions at once.

    Raises:
        ValueError: an entry is neither a URL, a host nor a model on Replicate, or its token is missing.
        SNBError: a setting of the engine is wrong.
    """
    specs = [spec.strip() for spec in environ.get("SNB_BACKEND_URL", "").split(",") if spec.strip()]
    if specs:
        return Backends([_named(spec, environ) for spec in specs])
    # These need torch, which a Space in front of a backend does not install.
    from engine_inside import EngineInside

    from snb.service import Service
    from snb.settings import Settings

    settings = Settings.from_environment(environ)
    return Backends([EngineInside(lambda: Service(settings), visitors)])


def _named(spec: str, environ: Mapping[str, str]) -> Backend:
    if spec.startswith("replicate:"):
        token = environ.get("REPLICATE_API_TOKEN", "")
        if not token:
            raise ValueError("SNB_BACKEND_URL names Replicate: set the secret REPLICATE_API_TOKEN")
        api = environ.get("REPLICATE_API_BASE_URL", "")
        return Replicate(spec.removeprefix("replicate:"), token, api)
    if spec.startswith("openai:"):
        raise ValueError("SNB_BACKEND_URL: openai: is for the JavaScript client, the page does not speak it")
    url = spec if "://" in spec else f"https://{spec}"
    where = urlsplit(url)
    if where.scheme not in ("http", "https") or not where.hostname:
        raise ValueError("SNB_BACKEND_URL: an entry is neither a host, a URL nor replicate:owner/name")
    return Cog(url.rstrip("/"), environ.get("SNB_API_KEY", ""))
