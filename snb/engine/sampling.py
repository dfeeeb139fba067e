"""Samples the next token of each row: penalties, temperature, top-k, top-p, then Gumbel noise.

The noise is a pure function of (seed, position, token), so a request draws the same tokens whatever else is
in the batch. Taking the highest of log p + Gumbel noise draws from p exactly (the Gumbel-max trick; Maddison,
Tarlow & Minka, "A* Sampling", 2014).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snb.parameters import Sampling


@dataclass(frozen=True)
class Draw:
    """How one row chooses its next token."""

    sampling: Sampling
    seed: int
    """Any whole number from 0 to 2**63 - 1."""
    position: int
    """How many tokens the answer has so far."""


class Penalties:
    """The tokens that each row has, and what the penalties take from the scores of repeating them.

    Repetition (Keskar et al., "CTRL", 2019; as in transformers): a positive score of any token of the prompt
    or the answer is divided by the penalty, a negative one multiplied. Presence and frequency (OpenAI's API
    reference): subtracted from the scores of the answer's tokens, once, or once for each occurrence.
    """

    def __init__(self, slots: int, vocabulary: int, device: torch.device) -> None:
        self._factor = torch.ones(slots, vocabulary, device=device)
        self._inverse = torch.ones_like(self._factor)
        self._minus = torch.zeros_like(self._factor)
        self._sampling = [Sampling()] * slots
        self._answered: list[set[int]] = [set() for _ in range(slots)]

    def start(self, row: int, prompt: Sequence[int], sampling: Sampling) -> None:
        """Resets a row for a new prompt."""
        self._sampling[row], self._answered[row] = sampling, set()
        self._factor[row], self._inverse[row], self._minus[row] = 1, 1, 0
        seen = torch.tensor(prompt, device=self._factor.device)
        self._factor[row, seen] = sampling.repetition_penalty
        self._inverse[row, seen] = 1 / sampling.repetition_penalty

    def add(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Adds one more token to each row's answer."""
        how = [self._sampling[row] for row in rows]
        minus = [
            one.frequency_penalty + one.presence_penalty * (token not in self._answered[row])
            for one, row, token in zip(how, rows, tokens, strict=True)
        ]
        for row, token in zip(rows, tokens, strict=True):
            self._answered[row].add(token)
        factor = self._factor.new_tensor([[one.repetition_penalty for one in how], minus])
        self._factor[rows, tokens], self._inverse[rows, tokens] = factor[0], 1 / factor[0]
        self._minus[rows, tokens] += factor[1]

    def move(self, source: int, target: int) -> None:
        """Copies the state of one row to another."""
        for store in (self._factor, self._inverse, self._minus):
            store[target] = store[source]
        self._sampling[target], self._answered[target] = self._sampling[source], self._answered[source]

    @torch.inference_mode()
    def apply(self, scores: Tensor, rows: Sequence[int]) -> None:
        """Applies the penalties of the given rows to their scores, fp32 `[n, vocabulary]`, in place."""
        how = [self._sampling[row] for row in rows]
        # Rows are nearly always the first ones, and a slice is read without a copy.
        where = slice(0, len(rows)) if rows[-1] == len(rows) - 1 else list(rows)
        if any(one.repetition_penalty != 1 for one in how):
            scores *= torch.where(scores > 0, self._inverse[where], self._factor[where])
        if any(one.presence_penalty or one.frequency_penalty for one in how):
            scores -= self._minus[where]


@torch.inference_mode()
def choose(scores: Tensor, draws: Sequence[Draw]) -> list[int]:
    """One token id for each row of `scores`, fp32 `[n, vocabulary]`."""
    noisy = [row for row, draw in enumerate(draws) if draw.sampling.temperature > 0]
    if len(noisy) == len(draws):
        return _draw(scores, draws)
    best: list[int] = scores.argmax(-1).tolist()
    if noisy:
        drawn = _draw(scores[noisy], [draws[row] for row in noisy])
        for row, token in zip(noisy, drawn, strict=True):
            best[row] = token
    return best


def _draw(scores: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Temperature, then top-k, then top-p, as `transformers` orders them; then one draw from what is left."""
    device, vocabulary = scores.device, scores.shape[-1]

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, device=device, dtype=torch.float32)[:, None]

    top_k = [draw.sampling.top_k or vocabulary for draw in draws]
    widest = min(max(top_k), vocabulary)
    kept, tokens = scores.topk(widest, dim=-1)
    kept = kept / column([draw.sampling.temperature for draw in draws])
    rank = torch.arange(widest, device=device)
    kept = kept.masked_fill(rank >= column([float(k) for k in top_k]), -torch.inf)
    probability = kept.softmax(-1)
    higher = probability.cumsum(-1) - probability
    top_p = column([draw.sampling.top_p for draw in draws])
    kept = kept.masked_fill((higher >= top_p) & (rank > 0), -torch.inf)
    keys = torch.tensor([[_key(draw.seed, draw.position)] for draw in draws], device=device)
    winner = (kept.double() + gumbel(keys, tokens)).argmax(-1, keepdim=True)
    return tokens.gather(-1, winner).squeeze(-1).tolist()


def gumbel(keys: Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise, fp64 in the shape of `tokens`, from int64 keys that broadcast with them."""
    bits = _mix(keys ^ _mix(tokens + _GOLDEN))
    uniform = (_shift(bits, 11).double() + 0.5) * 2.0**-53
    return -(-uniform.log()).log()


_GOLDEN = 0x9E3779B97F4A7C15 - 2**64


def _key(seed: int, position: int) -> int:
    """One int64 for each (seed, position); neighbours get unrelated ones."""
    return int(_mix(_mix(torch.tensor(seed) + _GOLDEN) + position * _GOLDEN % 2**63))


def _mix(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 on int64, which wraps as uint64 does (Steele, Lea & Flood, OOPSLA 2014)."""
    x = (x ^ _shift(x, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ _shift(x, 27)) * (0x94D049BB133111EB - 2**64)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; int64's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
