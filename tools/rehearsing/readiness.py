"""Waiting for a server that is still loading its model."""

import time

from tools.endpoints.endpoint import Failed, Http, faults
from tools.endpoints.started import say

DEAD = ("SETUP_FAILED", "DEFUNCT", "UNHEALTHY")
"""States from which a server does not come back by itself."""
READY = ("READY", "BUSY")
POLL = 0.5
"""Seconds between two looks."""
LOOK = 10.0
"""Seconds that one look may take; a host that is being started can swallow packets."""


def await_ready(url: str, limit: float) -> float:
    """Seconds until the Cog server at `url` took predictions.

    Cog's `/health-check` answers 200 always, so the status is read. A server that does not answer yet is
    waited for, since a container that boots does not listen from its first second.

    Raises:
        Failed: its setup failed, or it is not ready after `limit` seconds.
    """
    began = time.monotonic()
    http = Http(url, silence=LOOK)
    said = ""
    while True:
        state = status(http)
        if state in READY:
            return time.monotonic() - began
        if state in DEAD:
            raise Failed(f"the server says {state}; its log says why")
        if time.monotonic() - began + POLL > limit:
            raise Failed(f"not ready within {limit:g} s: {state}")
        if state != said:
            say(f"waiting for the server: {state}")
        said = state
        time.sleep(POLL)


def status(http: Http) -> str:
    """What the server says of itself, or why there is nothing to read."""
    try:
        found = http.json("GET", "/health-check")
        with faults():
            return str(found["status"])
    except Exception as error:  # whatever it is, the next look may find better
        return f"no status ({error})"
