"""Samples the next token of each row: masks, penalties, temperature, top-k, top-p, then Gumbel noise.

All of it stays on the device, so that the next step can begin before the host has seen a token, and a graph
can replay it.

The noise is a pure function of (seed, position, token), so a request draws the same tokens whatever else is
in the batch. Taking the highest of log p + Gumbel noise draws from p exactly (the Gumbel-max trick; Maddison,
Tarlow & Minka, "A* Sampling", 2014).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from snb.engine.recording import Record
from snb.engine.script import ANY, FORBIDDEN, Script
from snb.engine.slots import sent
from snb.parameters import Sampling

FEW, MANY = 64, 1024
"""How many of the likeliest tokens a row is drawn from, and how many if its top_k is above FEW. With no top_k
all tokens are sorted, for that row alone."""


class Draw(NamedTuple):
    """How each row draws, in columns `[n, 1]`: fp32 for temperature and top_p, int64 for the others."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    seed: Tensor
    """From 0 to 2**63 - 1."""
    position: Tensor
    """How many tokens the answer has so far."""


class Sampler:
    """The state of each row's answer, on the model's device, and the choice of its next token.

    Repetition penalty (Keskar et al., "CTRL", 2019; as in transformers): a positive score of any token of the
    prompt or the answer is divided by it, a negative one multiplied. Presence and frequency (OpenAI's API
    reference): subtracted from the scores of the answer's tokens, once, or once for each occurrence.

    Args:
        slots: rows.
        context: the position of a row that has nothing to run.
        script: which tokens may follow which.

    Attributes:
        ids: int64 `[slots, 1]`, the newest token of each row.
        positions: int64 `[slots, 1]`, its column of the cache; until a row has a token, `context`.
    """

    def __init__(self, slots: int, context: int, script: Script) -> None:
        vocabulary, self._device = script.after.shape[1], script.after.device
        self._script, self._context = script, context
        self.ids = torch.zeros(slots, 1, dtype=torch.int64, device=self._device)
        self.positions = torch.full_like(self.ids, context)
        self._state, self._answered = torch.zeros_like(self.ids), torch.zeros_like(self.ids)
        # Each row's `Sampling`, in the order in which `choose_eagerly` unpacks it: integers, and floats.
        self._whole = self.ids.repeat(1, 4)
        self._real = torch.zeros(slots, 5, device=self._device)
        # Per token: factors of negative and of positive scores, what is subtracted, whether it was drawn.
        self._factor = torch.ones(slots, vocabulary, device=self._device)
        self._inverse, self._minus = torch.ones_like(self._factor), torch.zeros_like(self._factor)
        self._said = torch.zeros_like(self._factor, dtype=torch.bool)
        self._rows = torch.arange(slots, device=self._device)
        self._candidates = [FEW] * slots
        self.recorded: dict[int, Callable[[], Tensor]] = {}
        """The recorded choice for the first n rows, by n, if all of them draw from FEW candidates."""

    def record(self, record: Record) -> None:
        """Records choices. Each is about a hundred kernels, which take longer to launch than to run."""
        self._scores = torch.zeros_like(self._factor)
        for number in range(len(self.ids), 0, -1):
            self.recorded[number] = record(partial(self.choose_eagerly, self._scores[:number], range(number)))

    def start(self, row: int, prompt: Sequence[int], sampling: Sampling, seed: int) -> None:
        """Resets a row for a new prompt."""
        how = sampling
        top_p = how.top_p if how.top_p < 1 else torch.inf  # sums of fp32 reach 1 before the last token
        penalties = how.repetition_penalty, how.presence_penalty, how.frequency_penalty
        self._real[row] = sent([how.temperature, top_p, *penalties], self._device)
        self._whole[row] = sent([how.top_k, how.min_tokens, len(prompt), seed], self._device)
        self._candidates[row] = FEW if 0 < how.top_k <= FEW or not how.temperature else how.top_k and MANY
        self.positions[row], self._answered[row] = self._context, 0
        self._state[row] = 0 if how.french else ANY
        self._factor[row], self._inverse[row], self._minus[row], self._said[row] = 1, 1, 0, False
        # Assigning a Python number at a tensor index would copy it from the host and wait for the device.
        seen = sent(prompt, self._device)
        self._factor[row].index_fill_(0, seen, how.repetition_penalty)
        self._inverse[row].index_fill_(0, seen, 1 / how.repetition_penalty)

    def move(self, source: int, target: int) -> None:
        """Copies the state of one row to another."""
        for store in vars(self).values():
            if isinstance(store, Tensor) and store is not self._rows:
                store[target] = store[source]
        self._candidates[target] = self._candidates[source]

    @torch.inference_mode()
    def choose(self, scores: Tensor, rows: Sequence[int]) -> Tensor:
        """Draws the next token of each of `rows`, int64 `[n]`; nothing here waits for the device.

        A token is -1 if the highest of its row's scores is not finite. Such a row can still be computed on.

        Args:
            scores: fp32 `[n, vocabulary]`, changed in place.
            rows: in ascending order.
        """
        number = len(rows)
        if not self.recorded or rows[-1] >= number or any(self._candidates[row] != FEW for row in rows):
            return self.choose_eagerly(scores, rows)
        self._scores[:number] = scores
        return self.recorded[number]()

    @torch.inference_mode()
    def choose_eagerly(self, scores: Tensor, rows: Sequence[int]) -> Tensor:
        """As `choose`, without a recording."""
        # Rows are nearly always the first ones, and a slice is read without a copy.
        first = rows[-1] == len(rows) - 1
        where = slice(0, len(rows)) if first else sent(rows, self._device)
        temperature, top_p, repetition, presence, frequency = self._real[where].T[..., None]
        top_k, least, length, seed = self._whole[where].T[..., None]
        answered = self._answered[where]
        after = self._script.after[self._state[where, 0]]
        self._mask(scores, after, answered < least)
        scores *= torch.where(scores > 0, self._inverse[where], self._factor[where])
        scores -= self._minus[where]
        drawn = self._draw(scores, rows, Draw(temperature, top_k, top_p, seed, answered))
        # On a GPU an id of -1, or the state FORBIDDEN, would trigger a device-side assert.
        tokens = drawn.clamp_min(0)

        cells = self._rows[where], tokens[:, 0]
        again = self._said[cells][:, None]
        self._minus[cells] += (frequency + presence * ~again)[:, 0]
        self._said[cells] = torch.ones_like(again[:, 0])  # not True: see `start`
        self._factor[cells], self._inverse[cells] = repetition[:, 0], 1 / repetition[:, 0]
        self._state[where] = after.gather(-1, tokens).long().clamp_max(ANY)
        self.ids[where], self.positions[where] = tokens, length + answered
        self._answered[where] = answered + 1
        return drawn[:, 0]

    def _mask(self, scores: Tensor, after: Tensor, early: Tensor) -> None:
        """Rules out what the script forbids, and the end tokens while an answer is too short."""
        scores.masked_fill_(after == FORBIDDEN, -torch.inf)
        ends = self._script.ends
        scores[:, ends] = scores[:, ends].masked_fill(early, -torch.inf)

    def _draw(self, scores: Tensor, rows: Sequence[int], how: Draw) -> Tensor:
        """Draws for all rows from few candidates, then again for the rows that need more."""
        tokens = draw(scores, how, FEW)
        for candidates in {self._candidates[row] for row in rows} - {FEW}:
            some = [index for index, row in enumerate(rows) if self._candidates[row] == candidates]
            part = sent(some, self._device)
            tokens[part] = draw(scores[part], Draw(*(column[part] for column in how)), candidates)
        return tokens


def draw(scores: Tensor, how: Draw, candidates: int) -> Tensor:
    """Applies temperature, top-k and top-p, in the order of `transformers`, and draws once from what is left.

    Args:
        scores: fp32 `[n, vocabulary]`.
        how: how each row draws; a `top_k` above `candidates` counts as `candidates`.
        candidates: how many of the likeliest tokens to draw from; 0 for all.

    Returns:
        Int64 `[n, 1]`. With temperature 0 the likeliest token, the first among equals. -1 where the highest
        score is not finite.
    """
    size = min(candidates or scores.shape[-1], scores.shape[-1])
    kept, tokens = scores.topk(size, dim=-1)
    finite = kept[:, :1].isfinite()  # NaN counts as the highest
    likeliest = tokens.where(kept == kept[:, :1], scores.shape[-1]).amin(-1, keepdim=True)
    lowest = kept.gather(-1, torch.where(how.top_k > 0, how.top_k, size).clamp_max(size) - 1)
    kept = kept.masked_fill(kept < lowest, -torch.inf) / how.temperature.where(how.temperature > 0, 1)
    probability = kept.softmax(-1)
    higher = probability.cumsum(-1) - probability
    higher[:, 0] = -torch.inf  # the likeliest stays, also with top_p 0
    kept = kept.masked_fill(higher >= how.top_p, -torch.inf)
    winner = (kept.double() + gumbel(_keys(how.seed, how.position), tokens)).argmax(-1, keepdim=True)
    return tokens.gather(-1, winner).where(how.temperature > 0, likeliest).where(finite, -1)


def gumbel(keys: Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise, fp64 in the shape of `tokens`, from int64 keys that broadcast with them."""
    bits = _mix(keys ^ _mix(tokens + _GOLDEN))
    uniform = (_shift(bits, 11).double() + 0.5) * 2.0**-53
    return -(-uniform.log()).log()


_GOLDEN = 0x9E3779B97F4A7C15 - 2**64


def _keys(seeds: Tensor, positions: Tensor) -> Tensor:
    """An int64 for each (seed, position); neighbouring pairs get unrelated ones."""
    return _mix(_mix(seeds + _GOLDEN) + positions * _GOLDEN)


def _mix(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 on int64, which wraps as uint64 does (Steele, Lea & Flood, OOPSLA 2014)."""
    x = (x ^ _shift(x, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ _shift(x, 27)) * (0x94D049BB133111EB - 2**64)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; int64's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
