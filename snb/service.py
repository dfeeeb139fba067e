"""The service behind `predict()`: model, engine and personas, and the metrics of each answer."""

import dataclasses
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cog import CancelationException

from snb import cancel
from snb.diagnosis import out_of_memory_named
from snb.engine.generation import Generation
from snb.engine.loop import Engine
from snb.engine.paths import PATHS, candidates, fastest
from snb.errors import SNBError
from snb.phase import Seconds, phase
from snb.philosophers import names, persona
from snb.prompt import ChatML, Prompt
from snb.request import Request
from snb.self_test import Report, self_test
from snb.settings import Settings
from snb.weights.loader import load

PROBE = Request(user_message="Que dois-je faire ?")
"""The request that the self-test sends."""
log = logging.getLogger(__name__)

Record = Callable[[str, float | int | str], None]


@dataclass(frozen=True)
class Boot:
    """What a boot chose, how long it took, and what its self-test found."""

    path: str
    precision: str
    slots: int
    seconds: Seconds
    """Duration of each phase, by its name."""
    self_test: Report


class Service:
    """Loads once, then answers requests from any number of threads.

    Raises:
        SNBError: a phase of the boot failed.
    """

    def __init__(self, settings: Settings) -> None:
        _log_to_stderr()
        cancel.install()
        # Each thread that computes has its own pool of OpenMP threads. As soon as all pools together have
        # more threads than there are cores, libgomp's threads sleep between kernels, and a decode step takes
        # 1.2 to 1.6 times as long (measured on two cores). So the boot runs in a thread that then ends.
        with ThreadPoolExecutor(max_workers=1) as boot:
            boot.submit(self._boot, settings).result()

    def _boot(self, settings: Settings) -> None:
        loaded = load(settings)
        seconds = loaded.seconds
        self._notice = loaded.notice
        self._chatml = ChatML(loaded.tokenizer)
        self._deadline, self._french = settings.deadline, settings.scripts == "french"
        self._interval = settings.piece_ms / 1000
        prefixes = [self._chatml.prefix(persona(name)) for name in names()]
        probe = self._chatml.prompt(persona("spinoza"), PROBE, settings.context).ids

        def start(path: str, last: bool) -> Engine:
            sizes = loaded.slots, settings.context
            with phase("engine", seconds), out_of_memory_named("making the engine"):
                engine = Engine(loaded.model, loaded.tokenizer, *sizes, prefixes, PATHS[path])
            try:
                with phase("self_test", seconds), out_of_memory_named("the self-test"):
                    report = self_test(engine, probe, last)
            except BaseException:
                engine.close()
                raise
            self.boot = Boot(path, loaded.choice.precision, loaded.slots, seconds, report)
            return engine

        paths = candidates(settings.path, loaded.model.device.type)
        self._engine = fastest(paths, start)

    @property
    def healthy(self) -> bool:
        """Whether new requests will be answered."""
        return self._engine.healthy

    def answer(
        self, request: Request, record: Record, cancellation: cancel.Cancellation | None = None
    ) -> Iterator[str]:
        """Returns the answer as an iterator of text; each metric is recorded as soon as it is known.

        Args:
            request: what the caller asks for.
            record: takes the name and the value of a metric.
            cancellation: ends the answer when canceled; by default, that of the current Cog prediction.

        Raises:
            PromptTooLong: before anything is generated.
            EngineDown: the decode loop has died or is stuck; also from the iterator.
            RequestFailed: from the iterator, if the engine failed on this request alone.
            DeadlinePassed: from the iterator, if there was no text in time.
            CancelationException: from the iterator, once the prediction is canceled.
        """
        arrived = time.monotonic()
        room = self._engine.context - request.sampling.max_tokens
        prompt = self._chatml.prompt(persona(request.philosopher), request, room)
        seed = secrets.randbits(32) if request.seed is None else request.seed
        deadline = arrived + min(request.deadline_seconds or self._deadline, self._deadline)
        sampling = dataclasses.replace(request.sampling, french=self._french)
        generation = self._engine.generate(prompt.ids, sampling, seed, deadline)
        (cancellation or cancel.current()).then(generation.cancel)
        record("seed", seed)
        if self._notice:
            record("notice", self._notice)
        if warnings := self.boot.self_test.of("doubt"):
            record("boot_warning", "; ".join(warnings))
        return joined(_metered(generation, self._interval, prompt, record, arrived))


def joined(pieces: Iterator[str]) -> Iterator[str]:
    """Joins more and more pieces as an answer grows, so that even the longest yields fewer than 1,020.

    coglet 0.23.1 replays 1,024 events to a reader who joins late, and ends the stream of one who needs more.
    2,048 tokens become at most 700 pieces.
    """
    waiting: list[str] = []
    try:
        for number, piece in enumerate(pieces):
            waiting.append(piece)
            if len(waiting) > number // 256:
                yield "".join(waiting)
                waiting.clear()
    except SNBError:
        if waiting:
            yield "".join(waiting)
        raise
    if waiting:
        yield "".join(waiting)


def _log_to_stderr() -> None:
    """Logs this package from INFO on, but other libraries, which may log addresses, only from WARNING on."""
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("snb").setLevel(logging.INFO)


def _metered(
    generation: Generation, interval: float, prompt: Prompt, record: Record, arrived: float
) -> Iterator[str]:
    """Yields the pieces of an answer and records its metrics. `arrived` is in monotonic seconds."""
    record("input_token_count", len(prompt.ids))
    record("rag_context_truncated_tokens", prompt.rag_truncated)
    record("rag_context_read", prompt.rag_read)
    first = True
    try:
        for piece in generation.pieces(interval):
            if first:
                record("time_to_first_token", time.monotonic() - arrived)
                first = False
            yield piece
    finally:
        generation.cancel()  # for a caller who left; after a normal end this does nothing
        log.info("%s after %d tokens", generation.finish_reason or "dropped", len(generation.tokens))
    record("output_token_count", len(generation.tokens))
    record("tokens_per_second", len(generation.tokens) / (time.monotonic() - arrived))
    record("finish_reason", generation.finish_reason)
    if generation.finish_reason == "canceled":
        raise CancelationException
