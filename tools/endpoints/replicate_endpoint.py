"""A model or a deployment on Replicate, through its official client, which retries what may be retried.

A stream may end early, so how a prediction ended is read from the prediction itself.
"""

import contextlib
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from typing import Any

import httpx
from replicate.client import Client
from replicate.exceptions import ReplicateError, ReplicateException
from replicate.prediction import Prediction

from tools.endpoints.endpoint import FULL, SILENCE, Busy, Piece, Refused, end, sendable, unreached

FAULTS = (ReplicateException, httpx.HTTPError, RuntimeError, ValueError, AttributeError)
"""What the client raises: RuntimeError for an `error` in a stream, the last two for replies it cannot read.
AttributeError is also raised here for a model without a version."""


class Replicate:
    """This package on Replicate.

    Args:
        model: `owner/name` (its latest version now), `owner/name:version` or `deployments/owner/name`.
        token: REPLICATE_API_TOKEN.
        api: the API's address, if not Replicate's own.
    """

    def __init__(self, model: str, token: str, api: str | None = None) -> None:
        self.name = model
        timeout = httpx.Timeout(SILENCE, connect=30)
        self._client = Client(sendable(token), base_url=api, timeout=timeout, trust_env=not api)
        name, _, version = model.partition(":")
        self._create: Callable[..., Prediction] = self._client.predictions.create
        if name.startswith("deployments/"):
            self._create = partial(self._create, deployment=name.removeprefix("deployments/"))
            return
        with faults():
            hosted: Any = None if version else self._client.models.get(name)
            self._create = partial(self._create, version=version or hosted.latest_version.id)

    def ask(self, inputs: Mapping[str, Any]) -> Iterator[Piece]:
        """See `Endpoint`. Text that the stream did not bring is taken from the prediction."""
        yield from self.begin(inputs)[0]

    def begin(self, inputs: Mapping[str, Any]) -> tuple[Generator[Piece], Callable[[], object]]:
        """The pieces of a prediction, which is created at once, and a function that cancels it."""
        with faults():
            prediction = self._create(input=dict(inputs), stream=True)

        def cancel() -> None:
            with faults():
                prediction.cancel()

        return self._pieces(prediction), cancel

    def _pieces(self, prediction: Prediction) -> Generator[Piece]:
        sent = 0
        for text in streamed(prediction):
            sent += len(text)
            yield Piece(text)
        with faults():
            while prediction.status in ("starting", "processing"):
                time.sleep(self._client.poll_interval)
                prediction.reload()
        last = end(prediction.dict())
        yield Piece("".join(prediction.output or [])[sent:], last.tokens, last.metrics)


def streamed(prediction: Prediction) -> Iterator[str]:
    """The text of the stream. One that breaks is not a failure: the prediction goes on without it."""
    with contextlib.suppress(*FAULTS):
        yield from (str(event.data) for event in prediction.stream() if event.event.value == "output")


@contextlib.contextmanager
def faults() -> Iterator[None]:
    """Turns what the client raises into Busy, Refused and Failed."""
    try:
        yield
    except ReplicateError as error:
        told = " ".join(filter(None, [error.title, error.detail]))
        if error.status in FULL:
            reset = re.search(r"~(\d+)s", told)  # "Your rate limit resets in ~30s."
            raise Busy(float(reset[1]) if reset else 0.0) from error
        raise Refused(error.status or 0, told) from error
    except FAULTS as error:
        raise unreached(error) from error
