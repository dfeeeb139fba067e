"""How long each phase of a boot takes."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

Seconds = dict[str, float]


@contextmanager
def phase(name: str, seconds: Seconds) -> Iterator[None]:
    """Notes the seconds of what is done within it under a name, and logs them when it has worked."""
    started = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - started, 2)
    log.info("%s: %.1f s", name, seconds[name])
