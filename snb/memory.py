"""How many bytes a Qwen2 model needs in each precision, computed from its config, and how many a host has."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

import torch
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from snb.engine.slots import PREFILL_TOKENS
from snb.errors import OutOfMemory

GIB = 1024**3
FIXED = 9 * GIB // 16
"""Bytes for the CUDA libraries' workspaces, recorded graphs and fragmentation; an allowance."""
CUDA_CONTEXT, LEFT_BY_LOADING = 6 * GIB // 10, 8 * GIB // 10
"""Bytes that are in use after loading besides the weights: CUDA's own on each card, and blocks of torch's
allocator that loading leaves half empty.

Their sum, 1.24 to 1.55 GiB, follows from the slots that a boot in nf4 kept on an H200 of which ballast filled
the rest, 2026-11-26: 3 where 14.6 GiB had been free, 11 where 22.0 had. How it divides is an estimate.
"""
PREFIX_TOKENS = 2400
"""Tokens of the personas' saved prefixes: 725, 764 and 784 by Qwen2.5's tokenizer, and a reserve."""
SAMPLING_COPIES = 24
"""Arrays of 4 bytes a slot and vocabulary entry that sampling holds at once, at most: scores, penalties,
counts, and, with no top_k, the whole vocabulary sorted (values, 8-byte order) with its noise in fp64."""
NF4_BLOCK, ABSMAX_BLOCK = 64, 256
"""Weights that share one absmax, and absmaxes that share one second-level absmax: bitsandbytes' defaults."""


@dataclass(frozen=True)
class Need:
    """Bytes that must be free before loading begins; computed, not measured."""

    weights: int
    cache: int
    margin: int
    """The larger of what running needs beside the cache, and what loading needs beyond the cache's size."""

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.margin

    def __str__(self) -> str:
        parts = f"weights {gib(self.weights)}, cache {gib(self.cache)}, margin {gib(self.margin)}"
        return f"{gib(self.total)} GiB computed: {parts}"


class Footprint:
    """Counts the parameters of a model on the meta device, then computes their bytes in any precision."""

    def __init__(self, config: Qwen2Config) -> None:
        with torch.device("meta"):
            model = Qwen2ForCausalLM(config)
        self.config = config
        self.parameters: int = sum(parameter.numel() for parameter in model.parameters())
        """A tied embedding counts once."""
        self._matrices = Counter((matrix.out_features, matrix.in_features) for matrix in quantised(model))
        self.largest: int = max(parameter.numel() for parameter in model.parameters())
        self._buffers: int = sum(buffer.nbytes for buffer in model.buffers())

    def need(self, precision: str, slots: int, context: int) -> Need:
        """The need of one precision with `slots` requests of `context` tokens.

        Loading is over before the cache is allocated, so the same memory holds first its work space (the
        largest tensor in fp32, in which a merge accumulates), then the cache and the work space of running.
        """
        cache, work = self._running(precision, slots, context)
        margin = max(LEFT_BY_LOADING + work, FIXED + 4 * self.largest - cache)
        return Need(self.weights(precision), cache, margin)

    def slots_within(self, free: int, precision: str, most: int, context: int) -> int:
        """How many slots, from 0 to `most`, fit the bytes that are free once the weights are loaded."""
        fitting = (n for n in range(most, 0, -1) if sum(self._running(precision, n, context)) <= free)
        return next(fitting, 0)

    def _running(self, precision: str, slots: int, context: int) -> tuple[int, int]:
        """Bytes of the slots' cache, and of everything beside it: prefixes, a forward pass, and FIXED."""
        token = self.cache_per_token(precision)
        cache = slots * (context + 1) * token
        return cache, FIXED + PREFIX_TOKENS * token + self._forward(precision, slots, cache)

    def weights(self, precision: str) -> int:
        """Bytes of parameters and buffers; int8 and nf4 hold all but the layers' matrices in 16 bits."""
        matrices = sum(rows * columns * count for (rows, columns), count in self._matrices.items())
        total = (self.parameters - matrices) * float_bytes(precision) + self._buffers
        for (rows, columns), count in self._matrices.items():
            total += count * matrix_bytes(rows, columns, precision)
        return total

    def cache_per_token(self, precision: str) -> int:
        """Bytes of one token's keys and values in all layers."""
        config = self.config
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim
        return int(numbers * float_bytes(precision))

    def _forward(self, precision: str, slots: int, cache: int) -> int:
        """Bytes at the peak of a forward pass.

        The sum of: one chunk of prefill (four arrays as wide as the MLP and eight as wide as the residual);
        one layer's cache, gathered and then expanded to all query heads; one matrix back in 16 bits, if it is
        quantised; the scores and sampling's copies of them.
        """
        config = self.config
        groups = config.num_attention_heads // config.num_key_value_heads
        widths = 4 * config.intermediate_size + 8 * config.hidden_size
        activations = max(PREFILL_TOKENS, slots) * widths * float_bytes(precision)
        attention = cache // config.num_hidden_layers * (1 + groups)
        matrix = 2 * max(rows * columns for rows, columns in self._matrices)
        scores = SAMPLING_COPIES * 4 * slots * config.vocab_size
        return int(activations + attention + scores + (matrix if precision in ("int8", "nf4") else 0))


def quantised(model: Qwen2ForCausalLM) -> list[nn.Linear]:
    """The matrices that transformers hands to bitsandbytes: every linear layer but the output embedding."""
    head = model.get_output_embeddings()
    return [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]


def matrix_bytes(rows: int, columns: int, precision: str) -> int:
    """Bytes of one matrix of a layer without its bias, as bitsandbytes 0.50 stores it.

    int8: a byte a weight and an fp32 scale a row. nf4 with double quantisation: half a byte a weight, a uint8
    absmax a block, an fp32 absmax for each block of those, their fp32 mean and an fp32 table of 16 values.
    """
    weights = rows * columns
    if precision == "int8":
        return weights + 4 * rows
    if precision == "nf4":
        blocks = ceil(weights / NF4_BLOCK)
        return ceil(weights / 2) + blocks + 4 * ceil(blocks / ABSMAX_BLOCK) + 4 + 4 * 16
    return weights * float_bytes(precision)


def float_bytes(precision: str) -> int:
    """Bytes of one number that is not quantised."""
    return 4 if precision == "fp32" else 2


def host_memory(meminfo: str, limits: Sequence[str]) -> tuple[int, int]:
    """Available and total bytes, from the texts of /proc/meminfo and of a container's limits."""
    kibibytes = {key: int(value) for key, value in re.findall(r"^(\w+): +(\d+) kB", meminfo, re.MULTILINE)}
    caps = [int(limit) for limit in limits if limit.strip().isdigit()]
    free, total = (min([1024 * kibibytes[key], *caps]) for key in ("MemAvailable", "MemTotal"))
    return free, total


def gib(count: int) -> str:
    """Bytes as GiB with one decimal."""
    return f"{count / GIB:.1f}"


SHORTAGE = re.compile(r"out of memory|ALLOC_FAILED|can't allocate memory", re.IGNORECASE)
"""Matches the messages of torch's allocators, CUDA and cuBLAS when memory runs out."""


@contextmanager
def out_of_memory_named(what: str) -> Iterator[None]:
    """Turns an out-of-memory error inside it into OutOfMemory, with torch's figures; other errors pass.

    Args:
        what: what is being done, and what it needs where that is known.
    """
    before = _refused_allocations()
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # The rest of torch's message is advice on its allocator.
        figures = str(error).partition(" Of the allocated memory")[0].partition("\n")[0].rstrip(".")
        if not SHORTAGE.search(figures):
            if not isinstance(error, MemoryError) and _refused_allocations() == before:
                raise
            figures = "an allocation was refused"
        raise OutOfMemory(
            f"{what}: {figures}",
            "End what else uses this device (nvidia-smi lists it), or take fewer SNB_SLOTS, a smaller "
            "SNB_CONTEXT or SNB_PRECISION=nf4",
        ) from error


def _refused_allocations() -> int:
    """How many torch refused on the GPU so far; transformers 5.23 hides one behind another error."""
    return int(torch.cuda.memory_stats().get("num_ooms", 0))
