"""Continuous batching: many requests share every decode step of one model.

One thread owns the model. Each turn of its loop ends requests that were canceled or are past their deadline,
admits waiting ones to free rows of the slot cache, runs one chunk of prefill, then one decode step for all
rows that are ready. `Sampler.choose` draws a token for each, and `Generation.take` sends its text to the
caller.

A GPU works asynchronously, so there the loop is one step behind: it launches the next step, whose input
tokens are on the device already, and meanwhile reads the tokens of the step before. A request that ends, by
its text or by its caller, has by then been computed one token further, which nobody sees.
"""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen2ForCausalLM

from snb.card import PREFILL_TOKENS
from snb.engine.detokenizer import Detokenizer, pieces
from snb.engine.generation import POLL, Generation
from snb.engine.sampling import Sampler
from snb.engine.script import Script
from snb.engine.shared import Prefix
from snb.engine.slots import PrefillPass, SlotModel, Step, sent
from snb.errors import BadInput, EngineDown, EngineStuck, RequestFailed
from snb.parameters import Sampling
from snb.prompt import ENDS

log = logging.getLogger(__name__)

STALL = 60.0
"""Seconds after which a turn of the loop counts as stuck; a turn normally takes well under one second."""
BESIDE = 128
"""Most tokens of each prompt in a prefill chunk while other rows decode, on a CPU: for one prompt they take
about two decode steps' time. On a GPU launching the kernels takes as long for these as for PREFILL_TOKENS."""
PAUSED = 10 * POLL
"""Waiting callers check the engine every POLL seconds. If none has for this many seconds, the whole process
was suspended, and the loop is not stuck."""


@dataclass(frozen=True)
class Chosen:
    """Tokens on their way from the device."""

    owners: list[Generation]
    tokens: Tensor
    """Int64 `[n]` on the host, complete once `arrived`."""
    arrived: torch.cuda.Event | None
    """None on a CPU."""
    scores: Tensor | None
    """The scores that they were chosen from, if one of the owners keeps them."""

    def read(self) -> list[int]:
        """Waits for the tokens and returns them."""
        if self.arrived:
            self.arrived.synchronize()
        return self.tokens.tolist()


class Engine:
    """Prompt ids in, an iterator of text out; `generate` may be called from any thread.

    Args:
        model: on its device, in eval mode.
        tokenizer: the model's.
        slots: requests decoded at once; others wait their turn, first come first served.
        context: tokens of one request, prompt and answer.
        prefixes: ids that many prompts begin with; their keys and values are computed once, here, and copied
            into the row of each request.
        path: how a decode step runs; see `snb.engine.paths`.
        stall: seconds without a turn, while there are requests, after which the engine is down.
        lag: steps that the loop is behind the device; by default one on a GPU, and none on a CPU, where it
            could do nothing in the meantime.
    """

    def __init__(
        self,
        model: Qwen2ForCausalLM,
        tokenizer: Tokenizer,
        slots: int,
        context: int,
        prefixes: Sequence[list[int]] = (),
        path: Callable[[SlotModel], Step] | None = None,
        stall: float = STALL,
        lag: int | None = None,
    ) -> None:
        self.context = context
        self.model = SlotModel(model, slots, context)
        self.step = path(self.model) if path else self.model.step
        self.prefill_pass: PrefillPass | None = getattr(self.step, "prefill_pass", None)  # if it is recorded
        self._vocabulary: int = model.config.vocab_size
        self._pieces = pieces(tokenizer, self._vocabulary)
        self._end_tokens = end_tokens(model, tokenizer)
        self.sampler = Sampler(slots, context, Script(self._pieces, self._end_tokens, model.device))
        if record := getattr(self.step, "record", None):  # where it records draws
            self.sampler.record(record)
        self._device = model.device
        self._lag = int(model.device.type == "cuda") if lag is None else lag
        self._chosen: deque[Chosen] = deque()
        self.prefixes = sorted(map(self._warm, prefixes), key=lambda prefix: -len(prefix.ids))
        self._waiting: deque[Generation] = deque()
        self._rows: list[Generation | None] = [None] * slots
        self.lock = threading.RLock()
        """Requests that are queued while a caller holds it are admitted together."""
        self._wake = threading.Condition(self.lock)
        self._closed = False
        self._down: EngineDown | None = None
        self._stall, self._turned, self._looked = stall, time.monotonic(), time.monotonic()
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._thread.start()

    def generate(
        self,
        prompt: list[int],
        sampling: Sampling,
        seed: int,
        deadline: float = float("inf"),
        keep_scores: bool = False,
    ) -> Generation:
        """Queues a request; iterate over the result to get its text.

        Args:
            deadline: in monotonic seconds; waiting counts.

        Raises:
            BadInput: no ids, ids outside the vocabulary, no room left for an answer, settings out of bounds.
            EngineDown: the decode loop has died, is stuck, or was closed.
        """
        if faults := [*self._faults(prompt, seed), *sampling.faults()]:
            raise BadInput(faults)
        scores: list[Tensor] | None = [] if keep_scores else None
        detokenizer = Detokenizer(self._pieces)
        generation = Generation(prompt, sampling, seed, detokenizer, self.fault, deadline, scores)
        with self._wake:
            if fault := self.fault():
                raise fault
            if not self.busy:
                self._turned = time.monotonic()
            self._waiting.append(generation)
            self._wake.notify()
        return generation

    def _faults(self, prompt: list[int], seed: int) -> Iterator[str]:
        if not prompt or not all(
            isinstance(token, int) and 0 <= token < self._vocabulary for token in prompt
        ):
            yield "the prompt must be a list of ids within the vocabulary"
        if len(prompt) >= self.context:
            yield f"the prompt has {len(prompt)} tokens; the context holds {self.context}"
        if not 0 <= seed < 2**63:
            yield "the seed must be a whole number from 0 to 2**63 - 1"

    def fault(self) -> EngineDown | None:
        """The error that has taken the engine down; None while it works."""
        now = time.monotonic()
        if now - self._looked > PAUSED:
            self._turned = now  # the process was suspended and resumed: the loop could not run either
        self._looked = now
        if self._down is None and self.busy and now - self._turned > self._stall:
            self._down = EngineDown(f"no decode step for {self._stall:.0f} s", "Restart the process")
            log.error("the decode loop is stuck")
        return self._down

    @property
    def healthy(self) -> bool:
        """Whether new requests will be answered."""
        return self.fault() is None and self._thread.is_alive()

    @property
    def busy(self) -> bool:
        """Whether requests hold rows or wait for one."""
        return bool(self._waiting) or any(self._rows)

    def close(self) -> None:
        """Stops the loop and frees its memory; requests under way end with EngineDown.

        Raises:
            EngineStuck: the loop does not end.
        """
        with self._wake:
            if self._closed:
                return
            self._closed = True
            self._wake.notify()
        self._thread.join(STALL)
        if self._thread.is_alive():
            raise EngineStuck(f"a step has not ended in {STALL:.0f} s", "Restart, or try another machine")
        # Freed here, not with the last reference: the next engine may need this memory while a traceback
        # still refers to this one.
        del self.model, self.step, self.prefill_pass, self.sampler, self._chosen, self.prefixes

    def _warm(self, ids: list[int]) -> Prefix:
        for start in range(0, len(ids), PREFILL_TOKENS):
            self.model.prefill([0], [ids[start : start + PREFILL_TOKENS]], [start])
        return self.model.cache.save(0, ids)

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._turned = time.monotonic()
                self._end_overdue()
                self._admit()
                self._compact()
                self._prefill()
                self._decode()
            self._fail(EngineDown("the engine was closed"))
        except Exception as error:
            log.error("the decode loop died: %s", type(error).__name__)
            self._fail(EngineDown("the decode loop died", "Restart the process"))

    def _wait_for_work(self) -> bool:
        with self._wake:
            if not self.busy:
                self._chosen.clear()  # the owners have ended, and nothing of theirs is kept
            self._wake.wait_for(lambda: self._closed or self.busy)
            return not self._closed and self._down is None

    def _fail(self, fault: EngineDown) -> None:
        with self._wake:
            self._down = self._down or fault
            for generation in itertools.chain(self._waiting, filter(None, self._rows)):
                generation.fail(self._down)

    def _end_overdue(self) -> None:
        """Ends requests that were canceled or are past their deadline, and frees their rows."""
        with self._wake:
            self._waiting = deque(owner for owner in self._waiting if not _overdue(owner))
        for row, owner in enumerate(self._rows):
            if owner and _overdue(owner):
                self._rows[row] = None

    def _admit(self) -> None:
        for row, owner in enumerate(self._rows):
            if owner is None and self._waiting:
                self._start(row, self._waiting.popleft())

    def _start(self, row: int, owner: Generation) -> None:
        """Gives a row to a request, filled with the longest saved prefix that its prompt begins with."""
        prompt = tuple(owner.prompt)
        fits = (prefix for prefix in self.prefixes if prompt[: len(prefix.ids)] == prefix.ids != prompt)
        prefix = next(fits, None)
        self._rows[row], owner.cached = owner, len(prefix.ids) if prefix else 0
        self.model.cache.start(row, prefix)
        self.sampler.start(row, owner.prompt, owner.sampling, owner.seed)

    def _compact(self) -> None:
        """Moves the last requests into free rows, so that decode steps compute no idle rows."""
        taken = [row for row, owner in enumerate(self._rows) if owner]
        holes = [row for row in range(len(taken)) if not self._rows[row]]
        for hole, last in zip(holes, reversed(taken), strict=False):
            self.model.cache.move(last, hole, self._owner(last).cached)
            self.sampler.move(last, hole)
            self._rows[hole], self._rows[last] = self._rows[last], None

    def _prefill(self) -> None:
        """Runs a chunk of the prompts that are not in the cache yet, for as many rows as fit in the chunk."""
        rows = [row for row, owner in enumerate(self._rows) if owner and not owner.prefilled]
        if not rows:
            return
        first = self._owner(rows[0])
        others = self._device.type == "cpu" and any(owner and owner.decoding for owner in self._rows)
        width = min(len(first.prompt) - first.cached, BESIDE if others else PREFILL_TOKENS)
        rows = rows[: max(1, PREFILL_TOKENS // width)]
        owners = [self._owner(row) for row in rows]
        ids = [owner.prompt[owner.cached : owner.cached + width] for owner in owners]
        starts = [owner.cached for owner in owners]
        scores = self.model.prefill(rows, ids, starts, self.prefill_pass)
        for owner, chunk in zip(owners, ids, strict=True):
            owner.cached += len(chunk)
        ready = [index for index, owner in enumerate(owners) if owner.prefilled]
        if ready:
            self._choose(scores[sent(ready, scores.device)], [rows[index] for index in ready])

    def _decode(self) -> None:
        """Generates one token for every row whose prompt is in the cache."""
        ready = [row for row, owner in enumerate(self._rows) if owner and owner.decoding]
        if not ready:
            self._collect(0)  # a last token may be on its way
            return
        number, longest = ready[-1] + 1, max(self._owner(row).cached for row in ready)
        ids, positions = self.sampler.ids[:number], self.sampler.positions[:number]
        scores = self.step(ids, positions, self.model.aligned(longest + 1))
        for row in ready:
            self._owner(row).cached += 1
        self._choose(scores if len(ready) == number else scores[sent(ready, scores.device)], ready)

    def _owner(self, row: int) -> Generation:
        owner = self._rows[row]
        assert owner is not None
        return owner

    def _choose(self, scores: Tensor, rows: list[int]) -> None:
        """Draws the next token of each of the rows, and collects those that were drawn `lag` steps before."""
        owners = [self._owner(row) for row in rows]
        kept = scores.clone() if any(owner.scores is not None for owner in owners) else None
        tokens = self.sampler.choose(scores, rows).to("cpu", non_blocking=True)
        arrived = None
        if scores.is_cuda:
            arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            arrived.record()
        self._chosen.append(Chosen(owners, tokens, arrived, kept))
        self._collect(self._lag)

    def _collect(self, behind: int) -> None:
        """Takes the tokens of all steps but the `behind` newest, and frees the rows of requests that end."""
        while len(self._chosen) > behind:
            chosen = self._chosen.popleft()
            for index, (owner, token) in enumerate(zip(chosen.owners, chosen.read(), strict=True)):
                if owner.finish_reason:
                    continue  # it ended while this token was computed
                if owner.scores is not None and chosen.scores is not None:
                    owner.scores.append(chosen.scores[index].cpu())
                with _alone(owner):
                    if token < 0:
                        raise FloatingPointError("its scores are not finite")
                    owner.take(token, ends=token in self._end_tokens, full=self._fills(owner))
                if owner.finish_reason:
                    row = self._rows.index(owner)
                    self._rows[row] = None
                    if owner.finish_reason == "error":
                        self.model.cache.clear(row)

    def _fills(self, owner: Generation) -> bool:
        """Whether one more token fills its row of the cache."""
        return len(owner.prompt) + len(owner.tokens) + 1 == self.context


def _overdue(owner: Generation) -> bool:
    with _alone(owner):
        owner.overdue()
    return bool(owner.finish_reason)


@contextmanager
def _alone(owner: Generation) -> Iterator[None]:
    """An exception in the work for one request ends that request and no other."""
    try:
        yield
    except Exception as error:
        log.error("a request failed: %s", type(error).__name__)
        owner.fail(RequestFailed("the answer could not be continued", "Ask again"))


def end_tokens(model: Qwen2ForCausalLM, tokenizer: Tokenizer) -> list[int]:
    """Every token that ends an answer: those of ChatML, and any others that the model's files name.

    A base's files may name one of them, another token or none (QwenLM/Qwen3#927); prompts are ChatML anyway.
    """
    named = model.generation_config.eos_token_id
    if named is None:
        named = model.config.eos_token_id
    ids = {tokenizer.token_to_id(end) for end in ENDS} | set(named if isinstance(named, list) else [named])
    return sorted(end for end in ids if isinstance(end, int) and 0 <= end < model.config.vocab_size)
