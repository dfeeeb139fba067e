"""What fits a card: bytes of a model in each precision, the device, and the best precision for it.

Bytes are computed from the model's config, before anything is loaded. `choose` decides by them before the
boot loads the weights; `budget` then sizes the KV cache, in slots, by the memory that is really left.
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from snb.diagnosis import Evidence, diagnose, out_of_memory_named
from snb.errors import DeviceUnusable, OutOfMemory
from snb.settings import Settings

log = logging.getLogger(__name__)

GIB = 1024**3
PREFILL_TOKENS = 512
"""Most prompt tokens of one forward pass, so that a long prompt does not hold up the decoding of others."""
FIXED = 9 * GIB // 16
"""Bytes for the CUDA libraries' workspaces, recorded graphs and fragmentation; an allowance."""
CUDA_CONTEXT, LEFT_BY_LOADING = 6 * GIB // 10, 8 * GIB // 10
"""Bytes that are in use after loading besides the weights: CUDA's own on each card, and blocks of torch's
allocator that loading leaves half empty.

Their sum, 1.24 to 1.55 GiB, follows from the slots that an nf4 boot kept on an H200 with the rest of its
memory filled, 2026-11-26: 3 where 14.6 GiB had been free, 11 where 22.0 had. How it divides is an estimate.
"""
PREFIX_TOKENS = 2500
"""Tokens of the personas' saved prefixes: 809, 817 and 826 by Qwen2.5's tokenizer, and a reserve."""
SAMPLING_COPIES = 24
"""The most 4-byte arrays `[slots, vocabulary]` that sampling holds at once: scores, penalties, and, with no
top_k, the whole vocabulary sorted (values, 8-byte order) with its noise in fp64."""
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
        """How many there are; a tied embedding counts once."""
        self._matrices = Counter((matrix.out_features, matrix.in_features) for matrix in quantised(model))
        self.largest: int = max(parameter.numel() for parameter in model.parameters())
        self._buffers: int = sum(buffer.nbytes for buffer in model.buffers())

    def need(self, precision: str, slots: int, context: int) -> Need:
        """The need of one precision with `slots` requests of `context` tokens.

        Loading is over before the cache is allocated, so the same memory holds first the work space of
        loading (the largest tensor in fp32, for the merge), then the cache and the work space of running.
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
        """Bytes of parameters and buffers; a quantised model has all but the layers' matrices in 16 bits."""
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
        one layer's cache, gathered and then expanded to all query heads; in nf4 one matrix dequantised to 16
        bits, in int8 and fp8 the joint matrix of gate and up; the scores and sampling's copies of them.
        """
        config = self.config
        groups = config.num_attention_heads // config.num_key_value_heads
        widths = 4 * config.intermediate_size + 8 * config.hidden_size
        activations = max(PREFILL_TOKENS, slots) * widths * float_bytes(precision)
        attention = cache // config.num_hidden_layers * (1 + groups)
        matrix = max(rows * columns for rows, columns in self._matrices)
        unpacked = {"nf4": 2, "int8": 4, "fp8": 4}.get(precision, 0) * matrix
        scores = SAMPLING_COPIES * 4 * slots * config.vocab_size
        return int(activations + attention + scores + unpacked)


def quantised(model: Qwen2ForCausalLM) -> list[nn.Linear]:
    """The matrices that int8, fp8 and nf4 quantise: every linear layer but the output embedding."""
    head = model.get_output_embeddings()
    return [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]


def matrix_bytes(rows: int, columns: int, precision: str) -> int:
    """Bytes of one matrix of a layer without its bias.

    int8 and fp8: one byte per weight and one fp32 scale per row. nf4 with double quantisation, as
    bitsandbytes 0.50 stores it: half a byte per weight, a uint8 absmax per block, an fp32 absmax per block of
    those, their fp32 mean and an fp32 table of 16 values.
    """
    weights = rows * columns
    if precision in ("int8", "fp8"):
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


FLOATS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
CPU_WEIGHTS = 8 * 10**9
"""Bytes of fp32 weights up to which a model runs on a CPU without SNB_DEVICE=cpu."""
CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Precision:
    """A number format that weights can be held in."""

    name: str
    reason: str
    """Why it has its place in BEST_FIRST."""
    share: float | None = None
    """Share of the slots that must fit for `auto` to take it on a GPU; None: only when it is named."""
    capability: tuple[int, int] = (0, 0)
    """Lowest compute capability of a GPU that computes in it natively."""
    below: tuple[int, int] | None = None
    """Compute capability from which `auto` has a better format of the same size; None if there is none."""
    steps: tuple[float, ...] = ()
    """Milliseconds of a decode step of 1, 4, 8 and 16 rows: the 14B, 768 columns, CUDA graphs, one H200,
    2026-11-26."""


BEST_FIRST = (
    Precision(
        "bf16",
        "Nearly lossless. With 8 slots it gives as many tokens a second as nf4 with 16 (13.6 ms a step, and "
        "28), each answer twice as fast",
        share=0.25,
        # Older GPUs emulate it, slowly; `torch.cuda.is_bf16_supported()` is True there too.
        capability=(8, 0),
        steps=(12.8, 13.3, 13.6, 14.4),
    ),
    Precision("fp16", "Instead of bf16 where a GPU only emulates that", share=0.25, below=(8, 0)),
    Precision("nf4", "A third of the bytes; slow above one row", share=0.0, steps=(12.5, 23.0, 27.0, 28.0)),
    Precision("int8", "Half of bf16's bytes; not measured on a card yet"),
    Precision(
        "fp8",
        "Half of bf16's bytes, and products of 8 bits; not measured on a card yet",
        capability=(8, 9),  # the first with tensor cores for it
    ),
    Precision("fp32", "What `auto` takes on a CPU, and what the others are measured by"),
)
"""What `auto` tries on a GPU, in order, nf4 with whatever slots fit; then what it never takes."""
HELD_IN = {one.name: one for one in BEST_FIRST}


@dataclass(frozen=True)
class Device:
    """What the model runs on. `Device.find` is the only place that asks the machine."""

    kind: str
    """`cuda` or `cpu`."""
    name: str
    capability: tuple[int, int]
    """Compute capability of a GPU; (0, 0) for a CPU."""
    free: int
    """Bytes of memory that are free."""
    total: int
    """Bytes of memory."""

    @classmethod
    def find(cls, wanted: str) -> "Device":
        """The device for the setting `wanted`. Raises DeviceUnusable, or OutOfMemory where a GPU is full."""
        if diagnose(Evidence.gather(), wanted) == "cpu":
            limits = [path.read_text() for path in CONTAINER_LIMITS if path.exists()]
            return cls("cpu", "the CPU", (0, 0), *host_memory(Path("/proc/meminfo").read_text(), limits))
        try:
            with out_of_memory_named("opening the GPU"):
                name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
                return cls("cuda", name, capability, *torch.cuda.mem_get_info())
        except RuntimeError as error:  # in exclusive use by another process, or broken
            fault, _, _ = str(error).partition("\n")
            cure = "nvidia-smi shows its state and what else uses it"
            raise DeviceUnusable(f"the GPU cannot be used: {fault}", cure) from error

    def runs(self, precision: str) -> bool:
        """Whether this device computes in a precision without emulation; a CPU runs them all."""
        return self.kind == "cpu" or self.capability >= HELD_IN[precision].capability

    @property
    def automatic(self) -> list[str]:
        """What `auto` tries here, best first."""
        if self.kind == "cpu":
            return ["fp32"]
        usable = [one for one in BEST_FIRST if one.share is not None and self.runs(one.name)]
        return [one.name for one in usable if one.below is None or self.capability < one.below]

    @property
    def half(self) -> str:
        """The 16-bit float to compute in. bf16 has the range of fp32, fp16 does not."""
        return "bf16" if self.runs("bf16") else "fp16"


def rented(name: str, capability: tuple[int, int], gibibytes: float) -> Device:
    """A GPU that only this process uses, with the memory that its driver reports."""
    total = int(gibibytes * GIB)
    return Device("cuda", name, capability, total - CUDA_CONTEXT, total)


CARDS = (
    rented("T4 (16 GB)", (7, 5), 14.6),
    rented("A10G (24 GB)", (8, 6), 22.0),
    rented("L4 (24 GB)", (8, 9), 22.0),
    rented("RTX 3090 (24 GB)", (8, 6), 23.6),
    rented("RTX 4090 (24 GB)", (8, 9), 23.6),
    rented("A100 (40 GB)", (8, 0), 39.4),
    rented("A40 (48 GB)", (8, 6), 44.4),
    rented("L40S (48 GB)", (8, 9), 44.4),
    rented("A100 (80 GB)", (8, 0), 79.1),
    rented("H100 (80 GB)", (9, 0), 79.1),
)
"""GPUs for rent, smallest first; total GiB as torch prints them in public out-of-memory reports."""


@dataclass(frozen=True)
class Choice:
    """What the loader and the engine use."""

    precision: str
    compute_dtype: torch.dtype
    """Dtype of all that is not quantised, of the cache, and of quantised layers' inputs and outputs."""
    slots: int
    """Requests decoded at once; fewer than the setting where memory is short."""
    need: Need
    reasons: tuple[str, ...]
    """Why nothing better was chosen, one sentence each."""


def choose(config: Qwen2Config, settings: Settings, device: Device) -> Choice:
    """Chooses the best precision with which enough slots fit the device's free memory, and how many fit.

    `auto` follows BEST_FIRST, and takes fp32 on a CPU; with any other setting only that precision is tried.

    Raises:
        DeviceUnusable: the GPU does not compute in the precision that is set, or a large model would run on a
            CPU without SNB_DEVICE=cpu.
        OutOfMemory: not even one slot fits.
    """
    footprint = Footprint(config)
    _refuse_accidental_cpu(footprint, settings, device)
    candidates = _candidates(settings.precision, device)
    reasons: list[str] = []
    for precision in candidates:
        needs = {n: footprint.need(precision, n, settings.context) for n in range(settings.slots, 0, -1)}
        slots = next((n for n, need in needs.items() if need.total <= device.free), 0)
        fewest = 1 if precision == candidates[-1] else ceil(settings.slots * (HELD_IN[precision].share or 0))
        if slots < settings.slots:
            wanted = settings.slots if slots >= fewest else fewest
            reasons.append(f"{precision} with {wanted} slots needs {gib(needs[wanted].total)} GiB")
        if slots >= fewest:
            return _chosen(precision, slots, needs[slots], reasons, device)
    raise _out_of_memory(footprint, candidates[-1], settings, device)


def _refuse_accidental_cpu(footprint: Footprint, settings: Settings, device: Device) -> None:
    if device.kind == "cpu" and settings.device == "auto" and footprint.weights("fp32") > CPU_WEIGHTS:
        billions = f"{footprint.parameters / 1e9:.1f} billion parameters"
        raise DeviceUnusable(
            f"no GPU was found, and {billions} are too slow on a CPU",
            "Take a machine with an NVIDIA GPU, or set SNB_DEVICE=cpu to run it on the CPU all the same",
        )


def _candidates(wanted: str, device: Device) -> list[str]:
    if wanted == "auto":
        return device.automatic
    if not device.runs(wanted):
        needed = HELD_IN[wanted].capability
        lowest, own = (".".join(map(str, pair)) for pair in (needed, device.capability))
        raise DeviceUnusable(
            f"{wanted} needs a GPU of compute capability {lowest}, and {device.name} has {own}",
            f"SNB_PRECISION={device.half}, int8 or nf4 would run; auto takes the best that fits",
        )
    return [wanted]


def _chosen(precision: str, slots: int, need: Need, reasons: list[str], device: Device) -> Choice:
    choice = Choice(precision, _compute_dtype(precision, device), slots, need, tuple(reasons))
    free = f"{gib(device.free)} of {gib(device.total)} GiB free"
    dtype = choice.compute_dtype
    log.info("%s, %s: %s, computing in %s, slots: %d", device.name, free, precision, dtype, slots)
    log.info("memory: %s", "; ".join([str(need), *reasons]))
    return choice


def _compute_dtype(precision: str, device: Device) -> torch.dtype:
    return FLOATS[precision if precision in FLOATS else device.half]


def _out_of_memory(footprint: Footprint, precision: str, settings: Settings, device: Device) -> OutOfMemory:
    need = footprint.need(precision, 1, settings.context)
    fits = (card.name for card in CARDS if card.runs(precision) and need.total <= card.free)
    free = f"{device.name} has {gib(device.free)} GiB free"
    return OutOfMemory(
        f"{precision} with one slot of {settings.context} tokens needs {need}; {free}",
        "Weights are never offloaded to the CPU or a disk. "
        f"The smallest card for this: {next(fits, f'none up to {CARDS[-1].name}')}. "
        "A smaller SNB_CONTEXT needs less, and SNB_PRECISION=nf4 least",
    )


def budget(config: Qwen2Config, choice: Choice, context: int, free: int) -> int:
    """How many of the chosen slots the KV cache gets, from the bytes that are free after loading.

    Raises:
        OutOfMemory: not one fits, since something else has taken memory meanwhile.
    """
    slots = Footprint(config).slots_within(free, choice.precision, choice.slots, context)
    log.info("%s GiB left after loading: slots: %d of %d", gib(free), slots, choice.slots)
    if not slots:
        raise OutOfMemory(
            f"{gib(free)} GiB are left after loading, too few for one slot of {context} tokens",
            "End what else uses this device, or take a smaller SNB_CONTEXT",
        )
    return slots
