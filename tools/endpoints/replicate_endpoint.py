"""A model or a deployment on Replicate, through its official client, which retries what may be retried.

A stream may end early; how a prediction ended, the prediction itself says.
"""

import contextlib
import functools
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import httpx
from replicate.client import Client
from replicate.exceptions import ReplicateError, ReplicateException
from replicate.prediction import Prediction

from tools.endpoints import dialect
from tools.endpoints.endpoint import FULL, SILENCE, Busy, Piece, Refused, Running, end, unreached

FAULTS = (ReplicateException, httpx.HTTPError, RuntimeError, ValueError, AttributeError)
"""What the client raises: RuntimeError for an `error` in a stream, the last two for replies it cannot read;
AttributeError also comes of a model without a version."""


class Replicate:
    """Resolves the model to one version, once.

    Args:
        model: `owner/name`, `owner/name:version` or `deployments/owner/name`.
        token: REPLICATE_API_TOKEN.
        api: in place of Replicate's own address.
    """

    def __init__(self, model: str, token: str, api: str | None = None) -> None:
        self.name = model
        timeout = httpx.Timeout(SILENCE, connect=30)
        self._client = Client(token, base_url=api, timeout=timeout, trust_env=not api)
        with faults():
            if deployed := model.startswith("deployments/"):
                deployment: Any = self._client.deployments.get(model.removeprefix("deployments/"))
                name, version = deployment.current_release.model, deployment.current_release.version
            else:
                name, _, version = model.partition(":")
            hosted: Any = self._client.models.get(name)
            version = version or hosted.latest_version.id
            anew = functools.partial(self._client.predictions.create, version)
            self._create: Callable[..., Prediction] = deployment.predictions.create if deployed else anew
            self.known = dialect.properties(hosted.versions.get(version).openapi_schema)

    def ask(self, inputs: Mapping[str, Any]) -> Iterator[Piece]:
        """See `Endpoint`. What the stream did not bring comes from the prediction."""
        yield from self.begin(inputs).pieces

    def begin(self, inputs: Mapping[str, Any]) -> Running:
        """A prediction, created now; one whose reader leaves goes on until it is canceled."""
        with faults():
            prediction = self._create(input=dialect.adapt(inputs, self.known), stream=True)

        def cancel() -> None:
            with faults():
                self._client.predictions.cancel(prediction.id)

        return Running(self._pieces(prediction), cancel)

    def _pieces(self, prediction: Prediction) -> Generator[Piece, None, None]:
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
    """What comes of the stream; one that breaks is no failure, for the prediction goes on without it."""
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
