"""Waits until a server at a URL can be asked, and fails at once if it never will be."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from snb.front.cog_server import DEAD, setup_fault
from tools.endpoints.cog_endpoint import own_key
from tools.endpoints.endpoint import Failed, Http, NoNetwork
from tools.endpoints.gradio_endpoint import hub_token, is_gradio

POLL, LOOK = 0.5, 10.0
"""Seconds between two looks at a server that boots, and before one times out: its host may drop packets."""
APP = "a Gradio app"


class Absent(Failed):
    """Nothing answers there, or nothing that can be asked; usual until a container listens."""


def await_ready(url: str, limit: float, say: Callable[[str], object], patient: bool = False) -> str:
    """Waits until the server at `url` is ready; returns its state and the seconds that took, as text.

    Args:
        limit: seconds to wait.
        say: is told each new state.
        patient: also waits for a server that does not answer yet, or whose host answers for it.

    Raises:
        Failed: it is not ready after `limit` seconds, or never will be.
    """
    began, before = time.monotonic(), ""
    while True:
        try:
            state = status(url)
        except Absent as absent:
            if not patient:
                raise Failed(f"{absent}; if a server is still booting there, add --boot 1800") from absent
            state = str(absent)
        elapsed = time.monotonic() - began
        if state in ("READY", "BUSY", APP):
            return f"{state} after {elapsed:.1f} s"
        if elapsed > limit:
            raise Failed(f"not ready within {limit:g} s: {state}")
        if state != before:
            say(f"waiting for the server: {state}")
        before = state
        time.sleep(POLL)


def status(url: str) -> str:
    """The status that the server reports, or APP for a Gradio app.

    Raises:
        Absent: there is no such server yet.
        Failed: it will never be ready, or not for this caller.
    """
    key, http = own_key(), Http(url, LOOK)
    try:
        response = http.look("/health-check")
    except NoNetwork:
        raise
    except Failed as failed:
        cure = "; a server without TLS needs http:// in front" if "SSL" in str(failed) else ""
        raise Absent(f"nothing answers there: {failed}{cure}") from failed
    health: Any = None
    with contextlib.suppress(ValueError):
        health = response.json()
    if not (isinstance(health, dict) and "status" in health):
        if is_gradio(Http(url, LOOK, hub_token(url))):
            return APP
        raise Absent(f"neither Cog nor Gradio is there: GET /health-check has HTTP {response.status_code}")
    if health["status"] in DEAD:
        why = setup_fault(health) or "its container's log says why"
        raise Failed(f"the server says {health['status']}: {why}")
    if Http(url, LOOK, key).look("/").status_code in (401, 403):
        cure = "SNB_API_KEY here is not the server's" if key else "set SNB_API_KEY to the server's key"
        raise Failed(f"UNAUTHORIZED: {cure}")
    return str(health["status"])
