"""Chooses the device and the precision of the weights: the best that fits, or an error that says why."""

import logging
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch
from transformers import BitsAndBytesConfig, Qwen2Config

from snb.diagnosis import Evidence, diagnose
from snb.errors import DeviceUnusable, OutOfMemory
from snb.memory import CUDA_CONTEXT, GIB, Footprint, Need, gib, host_memory, out_of_memory_named
from snb.settings import Settings

log = logging.getLogger(__name__)

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
    """Lowest compute capability of a GPU that computes in it."""
    below: tuple[int, int] | None = None
    """Compute capability from which `auto` has a better one of the same size; None: at none."""
    steps: tuple[float, ...] = ()
    """Milliseconds of a decode step of 1, 4, 8 and 16 rows: the 14B, 768 columns, CUDA graphs, one H200,
    2026-11-26."""


BEST_FIRST = (
    Precision(
        "bf16",
        "Nearly lossless. With half of the slots it gives as many tokens a second as nf4 with all (8 rows in "
        "13.6 ms, 16 in 28), each answer twice as fast",
        share=0.5,
        # Older GPUs emulate it, slowly; `torch.cuda.is_bf16_supported()` is True there too.
        capability=(8, 0),
        steps=(12.8, 13.3, 13.6, 14.4),
    ),
    Precision("fp16", "Instead of bf16 where a GPU only emulates that", share=0.5, below=(8, 0)),
    Precision("nf4", "A third of the bytes; slow above one row", share=0.0, steps=(12.5, 23.0, 27.0, 28.0)),
    Precision(
        "int8",
        "On the same card 120 to 137 ms a step at 1 to 16 rows, 32 s to load, and no CUDA graphs",
        capability=(7, 5),  # bitsandbytes' installation guide
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
    """Of a GPU; (0, 0) for a CPU."""
    free: int
    """Bytes."""
    total: int
    """Bytes."""

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
    rented("L4 or A10G (24 GB)", (8, 6), 22.0),
    rented("RTX 3090 or 4090 (24 GB)", (8, 6), 23.6),
    rented("A100 (40 GB)", (8, 0), 39.4),
    rented("A40 or L40S (48 GB)", (8, 6), 44.4),
    rented("A100 or H100 (80 GB)", (8, 0), 79.1),
)
"""GPUs for rent, smallest first; total GiB as torch prints them in public out-of-memory reports."""


@dataclass(frozen=True)
class Choice:
    """What the loader and the engine use."""

    precision: str
    compute_dtype: torch.dtype
    """Of everything that is not quantised, of the cache and of quantised layers' inputs and outputs."""
    slots: int
    """Requests decoded at once; fewer than the setting where memory is short."""
    need: Need
    reasons: tuple[str, ...]
    """Why nothing better was chosen, one sentence each."""


def choose(config: Qwen2Config, settings: Settings, device: Device) -> Choice:
    """Chooses the best precision with which enough slots fit the device's free memory, and how many fit.

    `auto` follows BEST_FIRST, and takes fp32 on a CPU; of any other setting only that precision is tried.

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
            "Take a machine with an NVIDIA GPU, or say SNB_DEVICE=cpu if a CPU is meant",
        )


def _candidates(wanted: str, device: Device) -> list[str]:
    if wanted == "auto":
        return device.automatic
    if not device.runs(wanted):
        needed = HELD_IN[wanted].capability
        lowest, own = (".".join(map(str, pair)) for pair in (needed, device.capability))
        raise DeviceUnusable(
            f"{wanted} needs a GPU of compute capability {lowest}, and {device.name} has {own}",
            f"SNB_PRECISION={device.half} or nf4 would run; auto takes the best that fits",
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
    # bitsandbytes 0.50 multiplies int8 matrices in fp16: it casts any other input and logs a line each time.
    return FLOATS[{"int8": "fp16", "nf4": device.half}.get(precision, precision)]


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


def quantization(choice: Choice) -> BitsAndBytesConfig | None:
    """The configuration for `from_pretrained`, or none for plain floats."""
    return quantization_in(choice.precision, choice.compute_dtype)


def quantization_in(precision: str, compute_dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """The same for a precision and the dtype to compute in.

    transformers itself keeps the output embedding and tied embeddings in 16 bits.
    """
    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    if precision == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            # Without it bitsandbytes computes in fp32, slowly and silently.
            bnb_4bit_compute_dtype=compute_dtype,
        )
    return None
