"""A container with Cog's HTTP API: https://cog.run/http"""

import contextlib
import secrets
from collections.abc import AsyncGenerator, Callable
from typing import Any

from http_backend import Http, later
from refusal import Refusal, of_prediction
from visitor import visitor


class Cog:
    """Every answer is a prediction with an id chosen here, by which it is canceled when its reader leaves.

    Args:
        key: sent as `Authorization: Bearer`; empty for none.
    """

    def __init__(self, url: str, key: str = "") -> None:
        self._http = Http(url, {"Authorization": f"Bearer {key}"} if key else None)

    async def ask(self, inputs: dict[str, Any], say: Callable[..., None]) -> AsyncGenerator[str, None]:
        """The answer, piece by piece. See `backend.Backend`."""
        path = f"/predictions/{secrets.token_hex(16)}"
        body, caller = {"input": inputs}, {"X-Caller": visitor()}
        running = False
        try:
            async with self._http.events("PUT", path, caller, json=body) as events:
                running = True
                async for event in events:
                    if event.event == "output":
                        yield str(event.json()["chunk"])  # type: ignore[index]
                    elif event.event in ("completed", "error"):
                        running = False
                        check(event.json(), say)
                        return
            raise Refusal("BACKEND_FAILED", "the stream ended before the answer did")
        except Refusal as refusal:
            raise refusal if running else await self._meant(refusal) from None
        finally:
            # Dropping the connection cancels it too, unless a proxy keeps that open.
            if running:
                later(self._http.json("POST", f"{path}/cancel"))

    async def _meant(self, refusal: Refusal) -> Refusal:
        """What a refused request means.

        While `setup()` runs, coglet 0.23.1 has no schema yet and answers 406 to a request for a stream; after
        a failed setup it answers 503 for ever. So its health is checked.
        """
        if refusal.code not in ("COLD_START", "BACKEND_FAILED"):
            return refusal
        with contextlib.suppress(Refusal):
            status = (await self._http.json("GET", "/health-check")).get("status")
            if status == "STARTING":
                return Refusal("COLD_START", "the model is being loaded", refusal.retry_after)
            if status in ("SETUP_FAILED", "DEFUNCT", "UNHEALTHY"):
                return Refusal("BACKEND_FAILED", f"the backend is {status}")
        return refusal

    async def close(self) -> None:
        """Drops what is open."""
        await self._http.close()


def check(prediction: Any, say: Callable[..., None]) -> None:
    """Raises Refusal unless a prediction that has ended succeeded; passes its metrics to `say`."""
    if prediction.get("status") != "succeeded":
        raise of_prediction(prediction)
    for name, value in (prediction.get("metrics") or {}).items():
        if value is not None:  # say(name) alone would announce the name as a code
            say(name, value)
