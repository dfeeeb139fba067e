"""The answers that Cog's server is making, and those that ended recently, each under its id."""

import asyncio
import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2

OF_ONE_CALLER = 4
"""Answers that a caller may always have at once, if there is room; beyond that, no more than there are free
places (the dynamic threshold of Choudhury and Hahne, 1998), so that a school behind one address gets half."""
GRACE = 1.0
"""Seconds for which an answer goes on without a reader: a caller whose connection broke comes back to it."""
CANCEL = 5.0
"""Seconds for which a caller waits for the end of what it cancels."""
FREED = 5.0
"""Seconds within which Cog's server frees the place of an answer that has ended. Until then it says that it
is full, as coglet 0.23.1 also does to one of two that come at once: it tries a lock and does not wait."""
KEPT, KEPT_SECONDS = 1000, 1800.0
"""How many ended answers can still be read, and for how many seconds: as long as a client's handle lives."""
FOLDERS = Path("/tmp/coglet/predictions")
"""coglet 0.23.1 leaves every prediction's folder there, so `_make` removes it. Delete both when Cog does."""
LOST = ("Slot dropped", "Failed to create output dir")
"""How coglet 0.23.1 words the error of a prediction whose folder it cannot make; it loses the place."""
LONGEST_ERROR = 2000
"""Characters."""


class Refused(Exception):
    """A question that is not taken, with the HTTP status and the reason that its caller is told."""

    def __init__(self, status: int, reason: Any) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Answer:
    """One answer, as far as it has come. Any number of readers see it from its beginning."""

    def __init__(self, name: str, question: bytes, caller: str) -> None:
        self.id, self.caller = name, caller
        self.question = question
        """A hash of what was asked, which is not kept: a thousand of them would take 500 MB."""
        self.detached = False
        """Whether it goes on when nobody reads it."""
        self.text: list[str] = []
        self.metrics: dict[str, Any] = {}
        self.status, self.error = "starting", ""
        self.readers = 0
        self.ended = asyncio.Event()
        self.ended_at = 0.0  # monotonic seconds
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when Cog's server has begun the answer; fails with Refused."""
        self.cancellable = asyncio.Event()
        self.canceling: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def take(self, event: str, data: dict[str, Any]) -> None:
        """Handles one of Cog's server-sent events."""
        if event == "start":
            self.status = "processing"
            self.accepted.set_result(None)
        elif event == "output":
            if data["chunk"]:  # an empty one would never be read
                self.text.append(data["chunk"])
            self.cancellable.set()
        elif event == "metric":
            self.metrics[data["name"]] = data["value"]
            self.cancellable.set()
        elif event in ("completed", "error"):
            self.metrics |= data.get("metrics") or {}
            self.end(data.get("status", "failed"), data.get("error"))
        self._changed.set()
        self._changed = asyncio.Event()

    def end(self, status: str, error: Any = None) -> None:
        """Ends the answer; only the first call counts."""
        if not self.ended.is_set():
            self.status, self.error = status, str(error or "")[:LONGEST_ERROR]
            self.ended_at = time.monotonic()
            self.ended.set()
            self.cancellable.set()
            self._changed.set()

    async def pieces(self, patience: float) -> AsyncIterator[str]:
        """Yields the text as it comes, and an empty string after `patience` seconds without any."""
        read = 0
        while read < len(self.text) or not self.ended.is_set():
            changed = self._changed
            if piece := "".join(self.text[read:]):
                read = len(self.text)
                yield piece
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), patience)
                continue
            yield ""

    def document(self) -> dict[str, Any]:
        """The answer in Cog's form of a prediction, without its input."""
        known = {"id": self.id, "status": self.status, "output": self.text, "metrics": self.metrics}
        return {**known, "error": self.error} if self.error else known


class Answers:
    """Every answer of one Cog server.

    Args:
        cog: a client of that server.
        places: how many answers the server makes at once.
    """

    def __init__(self, cog: httpx2.AsyncClient, places: int) -> None:
        self._cog, self._places = cog, places
        self._all: dict[str, Answer] = {}
        self._tasks: dict[Answer, asyncio.Task[None]] = {}
        self._peak = 0
        self.lost = ""
        """What shows that Cog's server has lost a place, or an empty string."""

    @property
    def full(self) -> bool:
        """Whether as many answers are being made as Cog's server takes."""
        return len(self._tasks) >= self._places

    def peak(self) -> int:
        """The most answers that were being made at once since the last call."""
        peak, self._peak = self._peak, len(self._tasks)
        return peak

    def known(self, name: str) -> Answer | None:
        """An answer by its id."""
        self.forget()
        return self._all.get(name)

    def forget(self) -> None:
        """Forgets the answers that ended too long ago."""
        ended = [answer for answer in self._all.values() if answer.ended.is_set()]
        oldest = time.monotonic() - KEPT_SECONDS
        for index, answer in enumerate(ended):
            if answer.ended_at < oldest or index < len(ended) - KEPT:
                del self._all[answer.id]

    async def get(self, name: str, question: bytes, caller: str) -> Answer:
        """The answer with that id, begun if there is none yet, so that a repeated request costs nothing.

        Args:
            question: the body of the request to Cog's server.
            caller: what tells this caller from others; empty if nothing does.

        Raises:
            Refused: the id is another question's, no place is free, or Cog's server does not take it.
        """
        answer, digest = self.known(name), hashlib.sha256(question).digest()
        if answer is None:
            self._check_room(caller)
            answer = self._all[name] = Answer(name, digest, caller)
            self._tasks[answer] = asyncio.create_task(self._make(answer, question))
            self._peak = max(self._peak, len(self._tasks))
        elif answer.question != digest:
            raise Refused(400, "this id belongs to another question")
        await asyncio.shield(answer.accepted)
        return answer

    def _check_room(self, caller: str) -> None:
        if self.full:
            raise Refused(409, f"all {self._places} places are taken")
        free = self._places - len(self._tasks)
        if caller and sum(one.caller == caller for one in self._tasks) >= max(OF_ONE_CALLER, free):
            raise Refused(429, "this caller has as many answers as it may have at once")

    async def _make(self, answer: Answer, question: bytes) -> None:
        try:
            deadline = time.monotonic() + FREED
            while not await self._read(answer, question, time.monotonic() < deadline):
                await asyncio.sleep(0.1)
            answer.end("failed", "the answer ended before its end")
            if answer.error.startswith(LOST):
                self.lost = answer.error
        except Refused as refusal:
            answer.end("failed")
            answer.accepted.set_exception(refusal)
        except Exception:  # the connection broke, or an event is not Cog's
            answer.end("failed", "Cog's server dropped the answer")
        finally:
            answer.end("canceled")
            if not answer.accepted.done():
                answer.accepted.set_exception(Refused(503, answer.error or "the server is ending"))
            if answer.accepted.exception():
                self._all.pop(answer.id, None)  # so that this id can be asked again
            del self._tasks[answer]
            shutil.rmtree(FOLDERS / answer.id, ignore_errors=True)

    async def _read(self, answer: Answer, question: bytes, patient: bool) -> bool:
        """Sends the question and reads the answer; False if the server is full and `patient` is true."""
        headers = {"Accept": "text/event-stream", "Content-Type": "application/json"}
        path = f"/predictions/{answer.id}"
        async with self._cog.stream("PUT", path, content=question, headers=headers) as response:
            if response.status_code == 409 and patient:
                return False
            if not response.is_success:
                raise self._refusal(response.status_code, await response.aread())
            async for event in httpx2.EventSource(response):
                answer.take(event.event, event.json())  # type: ignore[arg-type]
        return True

    def _refusal(self, status: int, body: bytes) -> Refused:
        """What the caller is told; Cog's own words repeat what was sent, so they are not passed on."""
        if status == 422:
            with contextlib.suppress(ValueError, LookupError, TypeError):
                return Refused(422, [fault["loc"][-1] for fault in json.loads(body)["detail"]])
            return Refused(422, [])
        if status in (406, 503):  # until setup is over it does not know that the model streams
            return Refused(503, "Setup has not finished")
        if status < 500 and status != 409:
            return Refused(400, "Cog's server does not take this")
        # There was a place by our own count, so one is lost, or something is wrong with Cog's server.
        self.lost = f"HTTP {status} where {len(self._tasks)} of {self._places} answers are being made"
        return Refused(503, "the server has lost a place and restarts")

    @contextlib.contextmanager
    def reading(self, answer: Answer) -> Iterator[None]:
        """Counts a reader during the block. An answer without readers is canceled, unless it is detached."""
        answer.readers += 1
        try:
            yield
        finally:
            answer.readers -= 1
            if not answer.readers and not answer.detached and not answer.ended.is_set():
                asyncio.get_running_loop().call_later(GRACE, self._leave, answer)

    async def finish(self, patience: float) -> None:
        """Gives unfinished answers `patience` seconds, then ends them as failed and tells their readers."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=patience)
        for answer, task in self._tasks.items():
            answer.end("failed", "the server restarts")
            task.cancel()

    def _leave(self, answer: Answer) -> None:
        if not answer.readers and not answer.detached and answer in self._tasks:
            self._begin_cancel(answer)

    async def cancel(self, answer: Answer) -> None:
        """Cancels an answer; returns when its place is free, or after CANCEL seconds in any case."""
        making = [self._tasks[answer]] if answer in self._tasks else []
        await asyncio.wait([self._begin_cancel(answer), *making], timeout=CANCEL)

    def _begin_cancel(self, answer: Answer) -> asyncio.Task[None]:
        answer.canceling = answer.canceling or asyncio.create_task(self._cancel(answer))
        return answer.canceling

    async def _cancel(self, answer: Answer) -> None:
        """coglet 0.23.1 loses a cancel that comes before `predict` has begun, as its first metric shows."""
        await answer.cancellable.wait()
        while not answer.ended.is_set():
            with contextlib.suppress(httpx2.HTTPError):
                await self._cog.post(f"/predictions/{answer.id}/cancel", timeout=CANCEL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(answer.ended.wait(), CANCEL)
