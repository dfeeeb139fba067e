"""Continuous batching: many requests share every decode step of one model.

One thread owns the model. Each turn of its loop admits waiting requests to free rows of the slot cache, runs
one chunk of prefill, then one decode step for all rows whose prompt is in the cache.
"""

import itertools
import logging
import queue
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen2ForCausalLM

from snb.detokenizer import Detokenizer
from snb.errors import BadInput, EngineDown
from snb.request import Sampling
from snb.sampling import Draw, choose
from snb.slots import SlotModel

log = logging.getLogger(__name__)

PREFILL_TOKENS = 512
"""Prompt tokens of one turn, so that a long prompt does not hold up the others' decode steps."""


@dataclass(eq=False)
class Generation:
    """One request inside the engine; its caller iterates over it and gets the text piece by piece.

    After the last piece `finish_reason` is `stop` (the model ended) or `length` (`max_tokens`, the context).
    """

    prompt: list[int]
    sampling: Sampling
    seed: int
    detokenizer: Detokenizer
    pieces: "queue.SimpleQueue[str | Exception | None]" = field(default_factory=queue.SimpleQueue)
    tokens: list[int] = field(default_factory=list)
    finish_reason: str = ""
    scores: list[Tensor] | None = None
    """Set to a list to keep the scores, fp32 `[vocabulary]`, that each token was chosen from."""
    cached: int = 0
    """Tokens of this request that are in its row of the cache."""

    def __iter__(self) -> Iterator[str]:
        while (piece := self.pieces.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    @property
    def prefilled(self) -> bool:
        """Whether only the newest token is still to be run through the model."""
        return self.cached >= len(self.prompt)


class Engine:
    """Prompt ids in, an iterator of text out; `generate` may be called from any thread.

    Args:
        model: on its device, in eval mode.
        tokenizer: of that model.
        slots: requests decoded at once; others wait their turn, first come first served.
        context: tokens of one request, prompt and answer.
    """

    def __init__(self, model: Qwen2ForCausalLM, tokenizer: Tokenizer, slots: int, context: int) -> None:
        self.context = context
        self._model = SlotModel(model, slots, context)
        self._tokenizer = tokenizer
        self._end_tokens = end_tokens(model)
        self._waiting: deque[Generation] = deque()
        self._rows: list[Generation | None] = [None] * slots
        self._wake = threading.Condition()
        self._closed = False
        self._fault: EngineDown | None = None
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._thread.start()

    def generate(
        self, prompt: list[int], sampling: Sampling, seed: int, keep_scores: bool = False
    ) -> Generation:
        """Queues a request; iterate over the result to get its text.

        Raises:
            BadInput: no ids, ids outside the vocabulary, or no room left for an answer.
            EngineDown: the decode loop has died or was closed.
        """
        vocabulary = self._model.model.config.vocab_size
        if not prompt or not all(0 <= token < vocabulary for token in prompt):
            raise BadInput("the prompt must be a list of ids within the vocabulary")
        if len(prompt) >= self.context:
            raise BadInput(f"the prompt has {len(prompt)} tokens; the context holds {self.context}")
        generation = Generation(prompt, sampling, seed, Detokenizer(self._tokenizer))
        generation.scores = [] if keep_scores else None
        with self._wake:
            if self._closed or self._fault:
                raise self._fault or EngineDown("the engine is closed")
            self._waiting.append(generation)
            self._wake.notify()
        return generation

    @property
    def healthy(self) -> bool:
        """Whether new requests will be answered."""
        return not self._closed and self._fault is None and self._thread.is_alive()

    def close(self) -> None:
        """Stops the loop; requests under way end with EngineDown."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._admit()
                self._prefill()
                self._decode()
            self._fail(EngineDown("the engine was closed"))
        except Exception as error:
            log.error("the decode loop died: %s", type(error).__name__)
            self._fail(EngineDown("the decode loop died", "Restart the process"))

    def _wait_for_work(self) -> bool:
        with self._wake:
            self._wake.wait_for(lambda: self._closed or self._waiting or any(self._rows))
            return not self._closed

    def _fail(self, fault: EngineDown) -> None:
        with self._wake:
            self._fault = fault
            for generation in itertools.chain(self._waiting, filter(None, self._rows)):
                generation.pieces.put(fault)

    def _admit(self) -> None:
        for row, owner in enumerate(self._rows):
            if owner is None and self._waiting:
                self._rows[row] = self._waiting.popleft()

    def _prefill(self) -> None:
        """One chunk of the prompts that are not in the cache yet, oldest first."""
        rows = [row for row, owner in enumerate(self._rows) if owner and not owner.prefilled]
        if not rows:
            return
        owners = [self._owner(row) for row in rows]
        width = min(len(owners[0].prompt) - owners[0].cached, PREFILL_TOKENS)
        batch = max(1, PREFILL_TOKENS // width)
        rows, owners = rows[:batch], owners[:batch]
        ids = [owner.prompt[owner.cached : owner.cached + width] for owner in owners]
        scores = self._model.forward(rows, ids, [owner.cached for owner in owners])
        for owner, chunk in zip(owners, ids, strict=True):
            owner.cached += len(chunk)
        ready = [index for index, owner in enumerate(owners) if owner.prefilled]
        if ready:
            self._choose(scores[ready], [rows[index] for index in ready])

    def _decode(self) -> None:
        """One token for every row whose prompt is in the cache."""
        ready = [row for row, owner in enumerate(self._rows) if owner and owner.prefilled]
        if not ready:
            return
        rows = range(ready[-1] + 1)
        owners = {row: self._owner(row) for row in ready}
        ids = [owners[row].tokens[-1:] if row in owners else [] for row in rows]
        starts = [owners[row].cached if row in owners else 0 for row in rows]
        scores = self._model.forward(slice(0, len(rows)), ids, starts)
        for owner in owners.values():
            owner.cached += 1
        self._choose(scores[ready], ready)

    def _owner(self, row: int) -> Generation:
        owner = self._rows[row]
        assert owner is not None
        return owner

    def _choose(self, scores: Tensor, rows: list[int]) -> None:
        owners = [self._owner(row) for row in rows]
        for owner, row_scores in zip(owners, scores, strict=True):
            if owner.scores is not None:
                owner.scores.append(row_scores.to("cpu", copy=True))
        for owner, row_scores in zip(owners, scores, strict=True):
            if len(owner.tokens) < owner.sampling.min_tokens:
                row_scores[self._end_tokens] = -torch.inf
        draws = [Draw(owner.sampling, owner.seed, len(owner.tokens)) for owner in owners]
        for row, owner, token in zip(rows, owners, choose(scores, draws), strict=True):
            self._take(row, owner, token)

    def _take(self, row: int, owner: Generation, token: int) -> None:
        """Adds a chosen token to an answer, sends the text it completes, and frees the row at the end."""
        owner.tokens.append(token)
        piece = "" if token in self._end_tokens else owner.detokenizer.push(token)
        if token in self._end_tokens:
            owner.finish_reason = "stop"
        elif len(owner.tokens) == owner.sampling.max_tokens or owner.cached + 1 == self.context:
            owner.finish_reason = "length"
        if owner.finish_reason:
            piece += owner.detokenizer.flush()
        if piece:
            owner.pieces.put(piece)
        if owner.finish_reason:
            self._rows[row] = None
            owner.pieces.put(None)


def end_tokens(model: Qwen2ForCausalLM) -> list[int]:
    """Every token that ends an answer: Qwen has two, and an engine that knows one of them does not stop."""
    ids = model.generation_config.eos_token_id
    if ids is None:
        ids = model.config.eos_token_id
    return ids if isinstance(ids, list) else [ids]
