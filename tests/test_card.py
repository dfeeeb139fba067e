"""The precision chosen for each card, each refusal, and the estimate of memory against real storage."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from transformers import Qwen2Config, Qwen2ForCausalLM

from snb.card import CARDS, GIB, LEFT_BY_LOADING, Device, Footprint, budget, choose, host_memory
from snb.diagnosis import Evidence, diagnose, out_of_memory_named
from snb.engine.slots import SlotCache
from snb.errors import DeviceUnusable, OutOfMemory
from snb.settings import PRECISIONS, Settings
from snb.weights import loader
from snb.weights.quantization import never_repacked, quantization
from tests.tiny import save_tiny, tiny_config, tiny_model
from tools.benchmarking.bounds import SIZES


def qwen(layers: int) -> Qwen2Config:
    """Qwen2.5-14B-Instruct, which has 48 layers, with another depth."""
    return Qwen2Config(**{**SIZES, "num_hidden_layers": layers})


QWEN_14B, SHALLOW, DEEP = qwen(layers=48), qwen(layers=2), qwen(layers=200)
FOOTPRINT_14B = Footprint(QWEN_14B)
HELD = [precision for precision in PRECISIONS if precision != "auto"]
CPU = Device("cpu", "the CPU", (0, 0), 64 * GIB, 64 * GIB)


def gpu(capability: tuple[int, int], free: float) -> Device:
    return Device("cuda", "Card", capability, int(free * GIB), int(free * GIB) + GIB // 2)


L4 = gpu((8, 9), 22.0)


@pytest.mark.parametrize(
    ("device", "precision", "dtype", "slots"),
    [
        pytest.param(gpu((7, 5), 47.0), "fp16", torch.float16, 20, id="Quadro RTX 8000"),
        pytest.param(gpu((7, 0), 31.4), "nf4", torch.float16, 23, id="V100"),
        pytest.param(gpu((7, 5), 12.9), "nf4", torch.float16, 1, id="room for one"),
    ],
)
def test_each_card_gets_the_best_precision_that_fits(
    device: Device, precision: str, dtype: torch.dtype, slots: int
) -> None:
    choice = choose(QWEN_14B, Settings(), device)
    assert (choice.precision, choice.compute_dtype, choice.slots) == (precision, dtype, slots)
    assert choice.need == FOOTPRINT_14B.need(precision, slots, 4096)


@pytest.mark.parametrize(("slots", "precision", "kept"), [(32, "bf16", 8), (33, "nf4", 29), (8, "bf16", 8)])
def test_auto_takes_a_better_precision_with_a_quarter_of_the_slots_and_not_with_fewer(
    slots: int, precision: str, kept: int
) -> None:
    card = gpu((8, 0), FOOTPRINT_14B.need("bf16", 8, 4096).total / GIB + 0.01)
    choice = choose(QWEN_14B, Settings(slots=slots), card)
    assert (choice.precision, choice.slots) == (precision, kept)


def test_a_precision_that_the_gpu_cannot_compute_in_is_refused() -> None:
    with pytest.raises(DeviceUnusable, match=r"bf16 needs .* SNB_PRECISION=fp16, int8 or nf4 would run"):
        choose(QWEN_14B, Settings(precision="bf16"), gpu((7, 5), 80))


@pytest.mark.parametrize(
    ("config", "precision", "smallest"),
    [
        (QWEN_14B, "auto", "T4 (16 GB)"),
        (QWEN_14B, "fp16", "A100 (40 GB)"),
        (DEEP, "bf16", "none up to H100 (80 GB)"),
        (SHALLOW, "bf16", "A10G (24 GB)"),  # a T4 has the memory, but does not compute in bf16
    ],
)
def test_a_card_too_small_for_one_slot_is_told_the_smallest_that_would_do_which_then_does(
    config: Qwen2Config, precision: str, smallest: str
) -> None:
    with pytest.raises(OutOfMemory, match=r"Card has 2\.0 GiB free") as caught:
        choose(config, Settings(precision=precision), gpu((8, 6), 2))
    assert f"The smallest card for this: {smallest}." in caught.value.cure
    for card in CARDS:
        if card.name == smallest:
            assert choose(config, Settings(precision=precision), card).slots


@pytest.mark.parametrize(("precision", "chosen"), [("auto", "fp32"), ("int8", "int8")])
def test_a_large_model_starts_on_a_cpu_only_when_asked_and_with_the_memory(
    precision: str, chosen: str
) -> None:
    roomy, asked = replace(CPU, free=500 * GIB), Settings(device="cpu", precision=precision)
    with pytest.raises(DeviceUnusable, match=r"no GPU was found, and 14\.8 billion .* SNB_DEVICE"):
        choose(QWEN_14B, Settings(precision=precision), roomy)
    assert choose(QWEN_14B, asked, roomy).precision == chosen
    with pytest.raises(OutOfMemory, match=r"the CPU has 2\.0 GiB free"):
        choose(QWEN_14B, asked, replace(CPU, free=2 * GIB))


DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
LAYERS = {"int8": "Rowwise", "fp8": "Rowwise", "nf4": "Linear4bit"}


@pytest.mark.parametrize(
    ("precision", "tied"), [*((precision, False) for precision in HELD), ("fp32", True), ("nf4", True)]
)
def test_each_precision_is_held_as_chosen_counted_to_the_byte_and_runs_on_a_cpu(
    tmp_path: Path, precision: str, tied: bool
) -> None:
    # The 36 x 72 weights of a key matrix do not fill their last block of 64; the MLP's have 333 absmaxes.
    sizes = {"hidden_size": 72, "intermediate_size": 296, "tie_word_embeddings": tied}
    config = tiny_config(**sizes)
    choice = choose(config, Settings(precision=precision), CPU)
    model = Qwen2ForCausalLM.from_pretrained(
        save_tiny(tmp_path, **sizes),
        dtype=choice.compute_dtype,
        quantization_config=quantization(choice.precision, choice.compute_dtype),
        device_map={"": "cpu"},
    )
    assert stored_bytes(model) == Footprint(config).weights(choice.precision) == choice.need.weights
    layer = model.model.layers[0].mlp.up_proj
    assert type(layer).__name__ == LAYERS.get(precision, "Linear")
    if precision == "nf4":
        assert (layer.weight.quant_type, layer.weight.quant_state.nested) == ("nf4", True)
        assert layer.compute_dtype == torch.bfloat16
    assert type(model.lm_head) is torch.nn.Linear
    never_repacked(model)
    with torch.inference_mode():
        scores = model(torch.arange(20)[None]).logits
    assert choice.compute_dtype == scores.dtype == DTYPES.get(precision, torch.bfloat16)
    assert scores.isfinite().all()


def stored_bytes(model: Qwen2ForCausalLM) -> int:
    """Bytes of every tensor that a loaded model holds, shared ones once, without the table of bitsandbytes
    that all double quantisation shares."""
    tensors = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        if isinstance(module, Linear4bit):
            state = module.weight.quant_state
            tensors += [state.absmax, state.code, state.offset, state.state2.absmax]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def test_the_cache_is_counted_to_the_byte() -> None:
    model = tiny_model()
    cache = SlotCache(model, slots=3, context=100)
    assert cache.keys.nbytes + cache.values.nbytes == Footprint(model.config).need("fp32", 3, 100).cache


MEASURED = {"T4 (16 GB)": 3, "A10G (24 GB)": 11, "L4 (24 GB)": 11}
"""Slots that a boot in nf4 kept with 14.6 and 22.0 GiB free: measured on an H200 with ballast, 2026-11-26."""


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_as_many_slots_are_kept_after_loading_as_were_promised_before(card: Device) -> None:
    choice = choose(QWEN_14B, Settings(), card)
    left = card.free - choice.need.weights - LEFT_BY_LOADING
    assert choice.slots == budget(QWEN_14B, choice, 4096, left) == MEASURED.get(card.name, choice.slots)


def test_a_cache_that_no_longer_fits_after_loading_is_refused() -> None:
    choice = choose(QWEN_14B, Settings(precision="nf4"), L4)
    with pytest.raises(OutOfMemory, match="left after loading"):
        budget(QWEN_14B, choice, 4096, GIB)


# The device

WORKING = Evidence("12.8", True, True, "570.86.15", "")
NO_GPU = Evidence("12.8", False, False, None, "Found no NVIDIA driver on your system")
OLD_DRIVER = Evidence("13.0", False, True, "535.104.05", "The NVIDIA driver on your system is too old")
NOT_PASSED = Evidence("12.8", False, False, "570.86.15", "No CUDA GPUs are available")
CPU_TORCH = Evidence(None, False, True, "570.86.15", "Torch not compiled with CUDA enabled")


def test_a_usable_device_is_taken_as_asked() -> None:
    for evidence in (WORKING, NO_GPU, OLD_DRIVER, NOT_PASSED, CPU_TORCH):
        assert diagnose(evidence, "cpu") == "cpu"
    assert diagnose(WORKING, "auto") == diagnose(WORKING, "cuda") == "cuda"
    assert diagnose(NO_GPU, "auto") == "cpu"


@pytest.mark.parametrize(
    ("evidence", "wanted", "fault"),
    [
        (OLD_DRIVER, "auto", r"driver 535.104.05 does not support this torch, built for CUDA 13.0: .* old"),
        (replace(OLD_DRIVER, driver_version=None), "auto", "driver of unknown version does not support"),
        (NOT_PASSED, "auto", r"driver 570.86.15, but no GPU is passed to this process\. .*--gpus all"),
        (replace(WORKING, available=False, hidden=True), "auto", r"CUDA_VISIBLE_DEVICES hides .*\. Unset"),
        (replace(CPU_TORCH, devices_visible=False), "auto", "a CPU-only build.*no GPU is passed"),
        (NO_GPU, "cuda", "this machine shows no NVIDIA driver and no GPU"),
    ],
    ids=["old driver", "hidden driver", "not passed", "hidden", "CPU torch and not passed", "absent"],
)
def test_a_gpu_that_is_unusable_is_refused_with_every_reason(
    evidence: Evidence, wanted: str, fault: str
) -> None:
    for demand in {wanted, "cuda"}:
        with pytest.raises(DeviceUnusable, match=fault):
            diagnose(evidence, demand)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (["max\n"], (20 * GIB, 24 * GIB)),
        ([f"{4 * GIB}\n"], (4 * GIB, 4 * GIB)),
        ([f"{22 * GIB}\n", "9223372036854771712\n"], (20 * GIB, 22 * GIB)),
    ],
)
def test_the_memory_of_a_host_is_what_is_available_within_the_limits_of_its_container(
    limits: list[str], expected: tuple[int, int]
) -> None:
    kibibytes = GIB // 1024
    total, free = f"MemTotal:       {24 * kibibytes} kB", f"MemAvailable:   {20 * kibibytes} kB"
    assert host_memory(f"{total}\nMemFree: 1 kB\n{free}\nHugePages_Total: 0\n", limits) == expected


# Memory that others take meanwhile

FULL = (
    "CUDA out of memory. GPU 0 has a total capacity of 14.56 GiB of which 1.24 GiB is free. "
    "Of the allocated memory 8.42 GiB is allocated by PyTorch."
)


def exhausted(error: BaseException | None = None) -> None:
    """Raises `error`, or else allocates more memory than there is."""
    if error:
        raise error
    torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("error", "figures"),
    [
        (torch.OutOfMemoryError(FULL), "of which 1.24 GiB is free"),
        (torch.AcceleratorError("CUDA error: out of memory\nCompile with", 2), "CUDA error: out of memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "CUBLAS_STATUS_ALLOC_FAILED"),
        (MemoryError(), "an allocation was refused"),
        (None, "you tried to allocate 1152921504606846976 bytes"),
    ],
    ids=["torch", "CUDA", "cuBLAS", "Python", "a real one"],
)
def test_a_want_of_memory_is_named_with_its_figures_and_a_cure(
    error: BaseException | None, figures: str
) -> None:
    with pytest.raises(OutOfMemory, match=r"SNB_CONTEXT") as caught, out_of_memory_named("loading in nf4"):
        exhausted(error)
    [fault] = caught.value.faults
    assert fault.startswith("loading in nf4: ")
    assert figures in fault
    assert "\n" not in fault
    assert "PyTorch" not in fault


def test_other_errors_keep_their_names() -> None:
    for error in (RuntimeError("CUDA error: an illegal memory access"), DeviceUnusable("x")):
        with pytest.raises(type(error)) as caught, out_of_memory_named("loading"):
            raise error
        assert caught.value is error


def test_a_boot_whose_memory_is_taken_meanwhile_ends_in_the_named_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "load_merged", lambda *_, **__: exhausted())
    settings = Settings(base_model=str(save_tiny(tmp_path)), adapter="none", prepared="none", device="cpu")
    with pytest.raises(OutOfMemory, match=r"loading in fp32, .* GiB computed: .* you tried to allocate"):
        loader.load(settings)
