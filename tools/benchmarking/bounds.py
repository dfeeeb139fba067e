"""The least time that decoding and reading a prompt can take on a card: the roofline, computed, not measured.

A step takes at least as long as its bytes take to be read from memory, and as its multiplications take in the
tensor cores, whichever is longer (Williams, Waterman and Patterson, 2009). Launches, synchronisation,
sampling, activations and whatever is read twice come on top, so what is measured has to be slower.
"""

from math import ceil
from typing import NamedTuple

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from snb.card import CARDS as RENTED
from snb.card import PREFILL_TOKENS, Device, Footprint, float_bytes, quantised, rented

SIZES = {"vocab_size": 152064, "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 48}
SIZES |= {"num_attention_heads": 40, "num_key_value_heads": 8, "max_position_embeddings": 32768}
SIZES |= {"tie_word_embeddings": False}
"""The configuration of Qwen2.5-14B-Instruct, so that nothing has to be downloaded."""
QWEN_14B = Qwen2Config(**SIZES)
UNPACKED = 4
"""Most rows for which bitsandbytes 0.50 does not unpack nf4, that is, write it out and read it in 16 bits."""


class Rates(NamedTuple):
    """What a GPU does in a second; fp8 is assumed to be multiplied twice as fast as 16-bit numbers."""

    bandwidth: float  # bytes of memory
    half: float  # operations of the tensor cores on dense 16-bit matrices


class Card(NamedTuple):
    name: str
    device: Device  # with nothing on it but this process
    rates: Rates


DEVICES = {device.name: device for device in RENTED}
_CARDS = (
    Card("T4", DEVICES["T4 (16 GB)"], Rates(320e9, 65e12)),
    Card("RTX 4000 SFF Ada", rented("RTX 4000 SFF Ada (20 GB)", (8, 9), 18.6), Rates(280e9, 76.7e12)),
    Card("L4", DEVICES["L4 (24 GB)"], Rates(300e9, 121e12)),
    Card("A10G", DEVICES["A10G (24 GB)"], Rates(600e9, 70e12)),
    Card("RTX 3090", DEVICES["RTX 3090 (24 GB)"], Rates(936e9, 71e12)),
    Card("RTX 4090", DEVICES["RTX 4090 (24 GB)"], Rates(1008e9, 165.2e12)),
    Card("A40", DEVICES["A40 (48 GB)"], Rates(696e9, 149.7e12)),
    Card("L40S", DEVICES["L40S (48 GB)"], Rates(864e9, 362.05e12)),
    Card("A100 80GB SXM", DEVICES["A100 (80 GB)"], Rates(2039e9, 312e12)),
    Card("H100 SXM", DEVICES["H100 (80 GB)"], Rates(3350e9, 989.5e12)),
)
CARDS = {card.name: card for card in _CARDS}
"""Every card of prices.toml; docs/costs.md links the datasheets. A100 and H100 are the faster kind, SXM."""


class Bounds:
    def __init__(self, config: Qwen2Config) -> None:
        self.footprint = Footprint(config)
        with torch.device("meta"):
            matrices = quantised(Qwen2ForCausalLM(config))
        # Numbers of weights: of the layers' matrices; of the output embedding; of the input's, if separate.
        self._matrices = sum(matrix.weight.numel() for matrix in matrices)
        self._head = config.vocab_size * config.hidden_size
        self._lookup = 0 if config.tie_word_embeddings else self._head
        # Operations for each pair of query and key: score and weighted sum, in all layers and heads.
        self._attention = 4 * config.num_hidden_layers * config.hidden_size

    def read(self, precision: str, rows: int, length: int, unpacked: bool = False) -> int:
        """Bytes that a step of `rows` requests moves, each with `length` tokens in the cache; if `unpacked`,
        nf4 matrices are also written out and read in 16 bits."""
        stored = self.footprint.weights(precision) - float_bytes(precision) * self._lookup
        cache = rows * length * self.footprint.cache_per_token(precision)
        return stored + cache + (2 * 2 * self._matrices if unpacked else 0)

    def decode(self, rates: Rates, precision: str, rows: int, length: int, unpacked: bool = False) -> float:
        """Seconds of such a step, which gives each request one token."""
        read = self.read(precision, rows, length, unpacked)
        return self._seconds(rates, precision, read, rows, rows * length, rows)

    def prefill(self, rates: Rates, precision: str, tokens: int) -> float:
        """Seconds to process a prompt of `tokens` tokens."""
        read = ceil(tokens / PREFILL_TOKENS) * self.read(precision, 0, 0)
        pairs = tokens * (tokens + 1) // 2
        return self._seconds(rates, precision, read, tokens, pairs, 1)

    def _seconds(
        self, rates: Rates, precision: str, read: int, tokens: int, pairs: int, scored: int
    ) -> float:
        """Seconds of memory or tensor cores, whichever take longer: for `read` bytes; for `tokens` in the
        layers' matrices, `pairs` of query and key, and `scored` tokens in the output embedding."""
        matrices = 2 * tokens * self._matrices / (2 if precision == "fp8" else 1)
        flops: float = matrices + pairs * self._attention + 2 * scored * self._head
        return max(read / rates.bandwidth, flops / rates.half)

    def answers(self, rates: Rates, precision: str, prompt: int, tokens: int, rows: int) -> float:
        """Seconds from `rows` equal requests at once to the end of the last; prompts are processed whole."""
        unpacked = precision == "nf4" and rows > UNPACKED
        step = self.decode(rates, precision, rows, prompt + tokens // 2, unpacked)
        return rows * self.prefill(rates, precision, prompt) + tokens * step
