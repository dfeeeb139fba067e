"""How long each phase of a boot takes."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

Seconds = dict[str, float]


@contextmanager
def phase(name: str, seconds: Seconds) -> Iterator[None]:
    """Times the block and, if it succeeds, stores its seconds under `name` and logs them."""
    started = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - started, 2)
    log.info("%s: %.1f s", name, seconds[name])
