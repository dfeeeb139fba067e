"""The least time that decoding and reading a prompt can take on a card: the roofline, computed, not measured.

A step takes at least as long as its bytes take to be read from memory, and as its multiplications take in the
tensor cores, whichever is longer (Williams, Waterman and Patterson, 2009). Launches, synchronisation,
sampling, activations and whatever is read twice come on top, so what is measured has to be slower.
"""

from dataclasses import dataclass
from math import ceil

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from snb.memory import Footprint, float_bytes, quantised
from snb.precision import Device, rented
from snb.slots import PREFILL_TOKENS

NVIDIA = "https://www.nvidia.com/content/dam/en-zz/Solutions"
SIZES = {
    "vocab_size": 152064,
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
}
"""Those of Qwen2.5-14B-Instruct, so that nothing has to be downloaded."""
QWEN_14B = Qwen2Config(**SIZES)


@dataclass(frozen=True)
class Card:
    """A GPU as its maker describes it. Rates are dense; datasheets also print those of sparse matrices."""

    name: str
    bandwidth: float
    """Bytes a second."""
    half: float
    """Floating-point operations a second of the tensor cores on 16-bit numbers."""
    int8: float
    """The same on 8-bit integers."""
    capability: tuple[int, int] = (0, 0)
    gib: float = 0
    """Of memory, as its driver reports it."""
    price: float = 0.0
    """Dollars a second on Replicate, November 2026."""
    source: str = ""

    @property
    def device(self) -> Device:
        """The card with nothing on it but this process."""
        return rented(self.name, self.capability, self.gib)


CARDS = (
    Card(
        "T4",  # no bf16: its tensor cores know fp16 and integers
        bandwidth=320e9,
        half=65e12,
        int8=130e12,
        capability=(7, 5),
        gib=14.6,
        price=0.000225,
        source="NVIDIA T4 product brief PB-08921-001 and datasheet "
        f"{NVIDIA}/Data-Center/tesla-t4/t4-tensor-core-datasheet-951643.pdf",
    ),
    Card(
        "L40S",
        bandwidth=864e9,
        half=362.05e12,
        int8=733e12,
        capability=(8, 9),
        gib=44.4,
        price=0.000975,
        source="NVIDIA L40S datasheet https://resources.nvidia.com/en-us-l40s/l40s-datasheet-28413",
    ),
    Card(
        "A100 80GB SXM",  # the PCIe card reads 1,935 GB/s
        bandwidth=2039e9,
        half=312e12,
        int8=624e12,
        capability=(8, 0),
        gib=79.1,
        price=0.0014,
        source=f"NVIDIA A100 datasheet {NVIDIA}/Data-Center/a100/pdf/"
        "nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf",
    ),
    Card(
        "H100 SXM",  # the PCIe card reads 2,000 GB/s and has three quarters of these rates
        bandwidth=3350e9,
        half=989.5e12,
        int8=1979e12,
        capability=(9, 0),
        gib=79.1,
        price=0.001525,
        source="NVIDIA H100 datasheet https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet",
    ),
)
"""What Replicate rents. It does not say which A100 and H100; these are the faster ones, as befits a bound."""


@dataclass(frozen=True)
class Step:
    """One decode step of `rows` requests at once."""

    rows: int
    bytes: int
    """Read, and for unpacked matrices also written."""
    flops: float
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Of all rows together."""
        return self.rows / self.seconds


class Bounds:
    """The bounds of one model."""

    def __init__(self, config: Qwen2Config) -> None:
        self.footprint = Footprint(config)
        with torch.device("meta"):
            matrices = quantised(Qwen2ForCausalLM(config))
        self._matrices = sum(matrix.weight.numel() for matrix in matrices)
        """Weights of the layers' matrices: what int8 and nf4 quantise."""
        self._head = config.vocab_size * config.hidden_size
        """Weights of the output embedding, which every step reads; of the input's it looks up a row."""
        self._lookup = 0 if config.tie_word_embeddings else self._head
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._attention = 4 * config.num_hidden_layers * config.num_attention_heads * head_dim
        """Operations for a query and a key that meet: score and weighted sum, in all layers."""

    def fits(self, card: Card, precision: str, rows: int, context: int) -> bool:
        """Whether a card computes in this precision and holds so many slots of `context` tokens."""
        need = self.footprint.need(precision, rows, context).total
        return card.device.runs(precision) and need <= card.device.free

    def decode(self, card: Card, precision: str, rows: int, length: int, unpacked: bool = False) -> Step:
        """One token for each of `rows` requests that have `length` tokens in the cache.

        Args:
            unpacked: nf4 only: every matrix is first written out in 16 bits and read again. bitsandbytes 0.50
                never does so up to 4 rows, and above that chooses by card and shape (`gemm_4bit`).
        """
        read = self._weights(precision, unpacked) + rows * length * self.footprint.cache_per_token(precision)
        seconds = self._compute(card, precision, rows, rows * length, rows)
        flops = 2 * rows * (self._matrices + self._head) + rows * length * self._attention
        return Step(rows, read, flops, max(read / card.bandwidth, seconds))

    def prefill(self, card: Card, precision: str, tokens: int, cached: int = 0) -> float:
        """Seconds to read `tokens` tokens of one prompt after `cached` that are in the cache already."""
        pairs = tokens * cached + tokens * (tokens + 1) // 2
        read = ceil(tokens / PREFILL_TOKENS) * self._weights(precision)
        return max(read / card.bandwidth, self._compute(card, precision, tokens, pairs, 1))

    def _weights(self, precision: str, unpacked: bool = False) -> int:
        """Bytes of weights that one pass reads, and writes if they are unpacked."""
        stored = self.footprint.weights(precision) - float_bytes(precision) * self._lookup
        return stored + (2 * 2 * self._matrices if unpacked else 0)

    def _compute(self, card: Card, precision: str, tokens: int, pairs: int, scored: int) -> float:
        """Seconds in the tensor cores: matrices, pairs of query and key, tokens whose scores are wanted."""
        rate = card.int8 if precision == "int8" else card.half
        plain = pairs * self._attention + 2 * scored * self._head
        return 2 * tokens * self._matrices / rate + plain / card.half
