"""Chooses the device and what the weights are held in: the best that fits, or a refusal that says why."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import BitsAndBytesConfig, Qwen2Config

from snb.errors import DeviceUnusable, OutOfMemory
from snb.memory import Footprint, Need, gib, host_memory
from snb.settings import Settings

log = logging.getLogger(__name__)

FLOATS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
LOWEST_CAPABILITY = {"bf16": (8, 0), "int8": (7, 5)}
"""Compute capability that a GPU needs. int8: bitsandbytes' installation guide. bf16: emulated below, slowly;
`torch.cuda.is_bf16_supported()` is true of emulation too."""
CPU_WEIGHTS = 8 * 10**9
"""Bytes of fp32 weights up to which a model may start on a CPU that nobody asked for."""
CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Evidence:
    """What a machine shows of its GPUs; `diagnose` decides from this alone."""

    torch_cuda: str | None
    """The CUDA version that torch was built for; none for a CPU-only build."""
    available: bool
    """Whether torch can use a GPU."""
    devices_visible: bool
    """Whether this process sees a GPU's device file."""
    driver_version: str | None
    """The NVIDIA driver of the kernel, which a container sees even without a GPU."""
    torch_error: str
    """What torch says when it is made to use a GPU; empty when that works."""

    @classmethod
    def gather(cls) -> "Evidence":
        try:
            torch.cuda.current_device()
            said = ""
        except (RuntimeError, AssertionError) as error:
            said = str(error).strip().rstrip(".")
        module = Path("/proc/driver/nvidia/version")
        version = re.search(r"\b\d{3,}(\.\d+)+", module.read_text() if module.exists() else "")
        return cls(
            torch_cuda=torch.version.cuda,
            available=torch.cuda.is_available(),
            devices_visible=any(Path("/dev").glob("nvidia[0-9]*")),
            driver_version=version.group() if version else None,
            torch_error=said,
        )


def diagnose(evidence: Evidence, wanted: str) -> str:
    """The kind of device, `cuda` or `cpu`, for a setting of `auto`, `cuda` or `cpu`.

    Raises:
        DeviceUnusable: a GPU was asked for, or is in the machine, and cannot be used; that never falls back
            to the CPU.
    """
    if wanted != "cpu" and evidence.available:
        return "cuda"
    if wanted == "cpu" or (wanted == "auto" and not evidence.devices_visible and not evidence.driver_version):
        return "cpu"
    faults, cures = zip(*_faults(evidence), strict=True)
    raise DeviceUnusable(faults, ". ".join([*cures, "SNB_DEVICE=cpu runs without a GPU"]))


def _faults(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Each reason why the GPU cannot be used, and its cure."""
    driver = f"NVIDIA driver {evidence.driver_version or 'of unknown version'}"
    if evidence.torch_cuda is None:
        yield "the installed torch is a CPU-only build", "Install a torch that is built for CUDA"
    if not evidence.devices_visible and evidence.driver_version:
        fault = f"the machine has {driver}, but no GPU is passed to this process"
        yield fault, "Start the container with its GPU (docker run --gpus all)"
    elif not evidence.devices_visible:
        yield "this machine shows no NVIDIA driver and no GPU", "Take a machine with an NVIDIA GPU"
    elif evidence.torch_cuda:
        fault = f"{driver} does not serve this torch, built for CUDA {evidence.torch_cuda}"
        yield f"{fault}: {evidence.torch_error}", "Update the driver, or install a torch for its CUDA"


@dataclass(frozen=True)
class Device:
    """What the model is to run on. `Device.find` is the only place that asks the machine."""

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
        """The device for the setting `wanted`. Raises DeviceUnusable as `diagnose` does."""
        if diagnose(Evidence.gather(), wanted) == "cpu":
            limits = [path.read_text() for path in CONTAINER_LIMITS if path.exists()]
            return cls("cpu", "the CPU", (0, 0), *host_memory(Path("/proc/meminfo").read_text(), limits))
        name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        return cls("cuda", name, capability, *torch.cuda.mem_get_info())

    def runs(self, precision: str) -> bool:
        """Whether this device computes in a precision without emulation; a CPU runs them all."""
        return self.kind == "cpu" or self.capability >= LOWEST_CAPABILITY.get(precision, (0, 0))

    @property
    def half(self) -> str:
        """The 16-bit float to compute in. bf16 has the range of fp32, fp16 does not."""
        return "bf16" if self.runs("bf16") else "fp16"


def _card(name: str, capability: tuple[int, int], gigabytes: int) -> Device:
    """A card as sold; 95% of its nominal decimal gigabytes counts as free, below what drivers report."""
    total = gigabytes * 10**9
    return Device("cuda", f"{name} ({gigabytes} GB)", capability, total * 95 // 100, total)


CARDS = (
    _card("T4", (7, 5), 16),
    _card("L4", (8, 9), 24),
    _card("A40 or L40S", (8, 6), 48),
    _card("A100 or H100", (8, 0), 80),
)
"""Cards that are for rent, smallest first."""


@dataclass(frozen=True)
class Choice:
    """What the loader and the engine are to use."""

    precision: str
    compute_dtype: torch.dtype
    """Of everything that is not quantised, of the cache and of quantised layers' inputs and outputs."""
    slots: int
    """Requests decoded at once; fewer than the setting where memory is short."""
    need: Need
    reasons: tuple[str, ...]
    """Why nothing better was taken, one sentence each."""


def choose(config: Qwen2Config, settings: Settings, device: Device) -> Choice:
    """The best precision that fits the device's free memory with all slots, or the last with fewer slots.

    `auto` tries 16 bits, int8 and nf4 on a GPU and fp32 on a CPU; any other setting is the only one tried.

    Raises:
        DeviceUnusable: the GPU does not compute in the precision that is set, or a large model would run on a
            CPU that was not asked for.
        OutOfMemory: not even one slot fits.
    """
    footprint = Footprint(config)
    _refuse_accidental_cpu(footprint, settings, device)
    candidates = _candidates(settings.precision, device)
    reasons: list[str] = []
    for precision in candidates:
        need = footprint.need(precision, settings.slots, settings.context)
        if need.total <= device.free:
            return _chosen(precision, settings.slots, need, reasons, device)
        reasons.append(f"{precision} with {settings.slots} slots needs {gib(need.total)} GiB")
    for slots in range(settings.slots - 1, 0, -1):
        need = footprint.need(candidates[-1], slots, settings.context)
        if need.total <= device.free:
            return _chosen(candidates[-1], slots, need, reasons, device)
    raise _out_of_memory(footprint, candidates[-1], settings, device)


def _refuse_accidental_cpu(footprint: Footprint, settings: Settings, device: Device) -> None:
    if device.kind == "cpu" and settings.device == "auto" and footprint.weights("fp32") > CPU_WEIGHTS:
        billions = f"{footprint.parameters / 1e9:.1f} billion parameters"
        raise DeviceUnusable(
            f"no GPU was found, and {billions} are too slow on a CPU",
            "Take a machine with an NVIDIA GPU, or say SNB_DEVICE=cpu if a CPU is meant",
        )


def _candidates(wanted: str, device: Device) -> list[str]:
    if wanted == "auto" and device.kind == "cpu":
        return ["fp32"]
    if wanted == "auto":
        return [name for name in (device.half, "int8", "nf4") if device.runs(name)]
    if not device.runs(wanted):
        lowest, own = (".".join(map(str, pair)) for pair in (LOWEST_CAPABILITY[wanted], device.capability))
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
        OutOfMemory: not one; something else has taken memory meanwhile.
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
    """The same of a precision and the dtype to compute in.

    The output embedding and tied embeddings stay in 16 bits, which transformers sees to by itself.
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
