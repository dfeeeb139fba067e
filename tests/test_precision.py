"""The precision chosen for each card, the sentence of each refusal, and the estimate against real storage."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM

from snb.card import (
    BEST_FIRST,
    CARDS,
    FIXED,
    FLOATS,
    GIB,
    HELD_IN,
    LEFT_BY_LOADING,
    Choice,
    Device,
    Footprint,
    Need,
    budget,
    choose,
    host_memory,
    quantization,
)
from snb.diagnosis import Evidence, diagnose, out_of_memory_named
from snb.engine.slots import SlotCache
from snb.errors import DeviceUnusable, OutOfMemory, SNBError
from snb.settings import PRECISIONS, ROOT, Settings
from snb.weights import loader
from tests.tiny import save_tiny, tiny_config, tiny_model


def qwen(layers: int) -> Qwen2Config:
    """Qwen2.5-14B-Instruct with another depth; it has 48 layers."""
    return Qwen2Config(
        vocab_size=152064,
        hidden_size=5120,
        intermediate_size=13824,
        num_hidden_layers=layers,
        num_attention_heads=40,
        num_key_value_heads=8,
        max_position_embeddings=32768,
        tie_word_embeddings=False,
    )


QWEN_14B = qwen(layers=48)
SHALLOW = qwen(layers=2)
FOOTPRINT_SHALLOW = Footprint(SHALLOW)
FOOTPRINT_14B = Footprint(QWEN_14B)
HELD = [precision for precision in PRECISIONS if precision != "auto"]
CPU = Device("cpu", "the CPU", (0, 0), 64 * GIB, 64 * GIB)


def gpu(name: str, capability: tuple[int, int], free: float) -> Device:
    """A GPU with `free` GiB."""
    return Device("cuda", name, capability, int(free * GIB), int(free * GIB) + GIB // 2)


T4 = gpu("Tesla T4", (7, 5), 14.0)


@pytest.mark.parametrize(
    ("device", "precision", "dtype", "slots"),
    [
        (T4, "nf4", torch.float16, 3),
        (gpu("NVIDIA L4", (8, 9), 21.4), "nf4", torch.bfloat16, 11),
        (gpu("NVIDIA GeForce RTX 3090", (8, 6), 23.0), "nf4", torch.bfloat16, 13),
        (gpu("NVIDIA A100-SXM4-40GB", (8, 0), 38.8), "bf16", torch.bfloat16, 10),
        (gpu("NVIDIA A40", (8, 6), 44.2), "bf16", torch.bfloat16, 16),
        (gpu("NVIDIA L40S", (8, 9), 44.2), "bf16", torch.bfloat16, 16),
        (gpu("NVIDIA A100 80GB PCIe", (8, 0), 78.7), "bf16", torch.bfloat16, 16),
        (gpu("NVIDIA H100 80GB HBM3", (9, 0), 78.7), "bf16", torch.bfloat16, 16),
        (gpu("Quadro RTX 8000", (7, 5), 47.0), "fp16", torch.float16, 16),
        (gpu("Tesla V100-SXM2-32GB", (7, 0), 31.4), "nf4", torch.float16, 16),
    ],
    ids=lambda value: value.name if isinstance(value, Device) else None,
)
def test_each_card_gets_the_best_precision_that_fits(
    device: Device, precision: str, dtype: torch.dtype, slots: int
) -> None:
    choice = choose(QWEN_14B, Settings(), device)
    assert (choice.precision, choice.compute_dtype, choice.slots) == (precision, dtype, slots)


def test_what_was_passed_over_is_told_with_its_need(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "snb.card"):
        choice = choose(QWEN_14B, Settings(), T4)
    assert [reason.split(" needs ")[0] for reason in choice.reasons] == [
        "fp16 with 8 slots",
        "nf4 with 16 slots",
    ]
    assert caplog.messages[0] == (
        "Tesla T4, 14.0 of 14.5 GiB free: nf4, computing in torch.float16, slots: 3"
    )
    assert caplog.messages[1] == f"memory: {choice.need}; {'; '.join(choice.reasons)}"


def test_a_precision_that_is_set_is_the_only_one_tried() -> None:
    choice = choose(QWEN_14B, Settings(precision="int8"), gpu("L4", (8, 9), 22.0))
    assert choice.precision == "int8"
    assert 1 <= choice.slots < 16


def test_by_the_measured_steps_bf16_with_its_share_of_the_slots_beats_nf4_with_all() -> None:
    bf16, nf4 = (dict(zip((1, 4, 8, 16), HELD_IN[name].steps, strict=True)) for name in ("bf16", "nf4"))
    for slots in (8, 16):
        part = int(slots * (HELD_IN["bf16"].share or 0))
        assert part / bf16[part] > slots / nf4[slots], "tokens of all"
        assert bf16[part] < 0.6 * nf4[slots], "time between the tokens of each"


@pytest.mark.parametrize(("slots", "precision", "kept"), [(16, "bf16", 8), (17, "nf4", 17), (8, "bf16", 8)])
def test_auto_takes_a_better_precision_with_half_of_the_slots_and_not_with_fewer(
    slots: int, precision: str, kept: int
) -> None:
    card = gpu("Card", (8, 0), FOOTPRINT_14B.need("bf16", 8, 4096).total / GIB + 0.01)
    choice = choose(QWEN_14B, Settings(slots=slots), card)
    assert (choice.precision, choice.slots) == (precision, kept)


def test_auto_never_takes_what_is_only_for_callers_who_name_it() -> None:
    assert {row.name for row in BEST_FIRST} == set(HELD)
    for capability in ((7, 0), (7, 5), (8, 0), (8, 9), (9, 0), (12, 0)):
        assert gpu("Card", capability, 80).automatic == ["bf16" if capability >= (8, 0) else "fp16", "nf4"]


def test_the_number_of_slots_never_grows_past_the_setting() -> None:
    assert choose(QWEN_14B, Settings(slots=3), gpu("H100", (9, 0), 79.0)).slots == 3


@pytest.mark.parametrize(
    ("precision", "capability", "sentence"),
    [
        ("bf16", (7, 5), "bf16 needs a GPU of compute capability 8.0, and Card has 7.5"),
        ("int8", (7, 0), "int8 needs a GPU of compute capability 7.5, and Card has 7.0"),
    ],
)
def test_a_precision_that_the_gpu_cannot_compute_in_is_refused(
    precision: str, capability: tuple[int, int], sentence: str
) -> None:
    with pytest.raises(DeviceUnusable, match="SNB_PRECISION=fp16 or nf4 would run") as caught:
        choose(QWEN_14B, Settings(precision=precision), gpu("Card", capability, 80))
    assert caught.value.faults == [sentence]


@pytest.mark.parametrize(
    ("precision", "smallest"),
    [
        ("auto", "T4 (16 GB)"),
        ("int8", "L4 or A10G (24 GB)"),
        ("bf16", "A100 (40 GB)"),
        ("fp32", "A100 or H100 (80 GB)"),
    ],
)
def test_a_card_too_small_for_one_slot_is_told_the_smallest_that_would_do(
    precision: str, smallest: str
) -> None:
    with pytest.raises(OutOfMemory) as caught:
        choose(QWEN_14B, Settings(precision=precision), gpu("RTX 3070", (8, 6), 7.6))
    assert caught.value.faults[0].endswith("; RTX 3070 has 7.6 GiB free")
    assert (
        f"never offloaded to the CPU or a disk. The smallest card for this: {smallest}." in caught.value.cure
    )


def test_a_model_that_no_card_holds_says_so() -> None:
    with pytest.raises(OutOfMemory, match=r"this: none up to A100 or H100 \(80 GB\)"):
        choose(qwen(layers=200), Settings(precision="bf16"), gpu("H100", (9, 0), 78.7))


def test_a_card_that_cannot_compute_in_the_precision_is_not_named() -> None:
    with pytest.raises(OutOfMemory, match=r"this: L4 or A10G \(24 GB\)"):
        choose(SHALLOW, Settings(precision="bf16"), gpu("Card", (8, 6), 2))


def test_memory_for_one_slot_is_enough_and_a_byte_less_is_not() -> None:
    settings = Settings(context=32768)
    exact = replace(T4, free=FOOTPRINT_14B.need("nf4", 1, 32768).total)
    assert choose(QWEN_14B, settings, exact).slots == 1
    with pytest.raises(OutOfMemory):
        choose(QWEN_14B, settings, replace(exact, free=exact.free - 1))


def test_the_card_that_a_refusal_names_is_then_accepted() -> None:
    tiny_card = gpu("Card", (9, 0), 1)
    for precision in HELD:
        with pytest.raises(OutOfMemory) as caught:
            choose(QWEN_14B, Settings(precision=precision), tiny_card)
        [named] = [card for card in CARDS if f"this: {card.name}. " in caught.value.cure]
        assert choose(QWEN_14B, Settings(precision=precision), named).precision == precision


def test_a_large_model_never_starts_on_a_cpu_by_accident() -> None:
    roomy = replace(CPU, free=500 * GIB)
    for precision in PRECISIONS:
        with pytest.raises(
            DeviceUnusable, match=r"no GPU was found, and 14\.8 billion parameters .* SNB_DEVICE"
        ):
            choose(QWEN_14B, Settings(precision=precision), roomy)
    assert choose(QWEN_14B, Settings(device="cpu"), roomy).precision == "fp32"


def test_a_cpu_that_is_asked_for_must_have_the_memory() -> None:
    with pytest.raises(OutOfMemory, match=r"the CPU has 12\.0 GiB free"):
        choose(QWEN_14B, Settings(device="cpu"), replace(CPU, free=12 * GIB))


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("auto", torch.float32),
        ("fp32", torch.float32),
        ("bf16", torch.bfloat16),
        ("fp16", torch.float16),
        ("int8", torch.float16),
        ("nf4", torch.bfloat16),
    ],
)
def test_a_small_model_runs_on_the_cpu_in_every_precision(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, precision: str, dtype: torch.dtype
) -> None:
    choice = choose(tiny_config(), Settings(precision=precision), CPU)
    model = load(save_tiny(tmp_path), choice)
    with caplog.at_level(logging.WARNING, "bitsandbytes.autograd._functions"), torch.inference_mode():
        scores = model(torch.arange(20)[None]).logits
    assert choice.compute_dtype == scores.dtype == dtype
    assert scores.isfinite().all()
    assert not [message for message in caplog.messages if "cast" in message]


def test_quantised_layers_are_what_was_chosen_and_the_output_embedding_stays_plain(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path)
    nf4 = load(folder, choose(tiny_config(), Settings(precision="nf4"), CPU))
    layer = nf4.model.layers[0].mlp.up_proj
    assert isinstance(layer, Linear4bit)
    assert (layer.weight.quant_type, layer.weight.quant_state.nested) == ("nf4", True)
    assert layer.compute_dtype == torch.bfloat16
    assert type(nf4.lm_head) is torch.nn.Linear
    int8 = load(folder, choose(tiny_config(), Settings(precision="int8"), CPU))
    assert isinstance(int8.model.layers[0].mlp.up_proj, Linear8bitLt)
    assert type(int8.lm_head) is torch.nn.Linear


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_plain_floats_have_no_quantization(precision: str) -> None:
    assert quantization(precision, FLOATS[precision]) is None


# The estimate


def test_the_figures_of_the_14b() -> None:
    weights = {precision: FOOTPRINT_14B.weights(precision) / GIB for precision in HELD}
    assert FOOTPRINT_14B.parameters == 14_770_033_664
    assert FOOTPRINT_14B.weights("bf16") == pytest.approx(29.54e9, rel=1e-4)
    assert weights["fp16"] == weights["bf16"]
    assert weights["fp32"] == pytest.approx(2 * weights["bf16"])
    assert weights["int8"] == pytest.approx(15.2, abs=0.05)
    assert weights["nf4"] == pytest.approx(9.25, abs=0.005)
    assert FOOTPRINT_14B.cache_per_token("nf4") == FOOTPRINT_14B.cache_per_token("bf16") == 196_608
    assert FOOTPRINT_14B.cache_per_token("fp32") == 2 * 196_608
    assert FOOTPRINT_14B.need("nf4", 1, 4096).cache / GIB == pytest.approx(0.75, abs=0.001)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("precision", HELD)
def test_the_weights_are_counted_to_the_byte(tmp_path: Path, precision: str, tied: bool) -> None:
    # The 36 x 72 weights of a key matrix do not fill their last block of 64; the MLP's have 333 absmaxes.
    sizes = {"hidden_size": 72, "intermediate_size": 296, "tie_word_embeddings": tied}
    config = tiny_config(**sizes)
    choice = choose(config, Settings(precision=precision), CPU)
    model = load(save_tiny(tmp_path, **sizes), choice)
    assert stored_bytes(model) == Footprint(config).weights(precision) == choice.need.weights


def test_the_cache_is_counted_to_the_byte() -> None:
    model = tiny_model()
    cache = SlotCache(model, slots=3, context=100)
    assert cache.keys.nbytes + cache.values.nbytes == Footprint(model.config).need("fp32", 3, 100).cache


def test_loading_needs_the_largest_tensor_in_fp32_until_the_cache_takes_its_place() -> None:
    small, large = FOOTPRINT_14B.need("nf4", 1, 256), FOOTPRINT_14B.need("nf4", 16, 4096)
    embedding = 152064 * 5120 * 4
    assert small.total == small.weights + embedding + FIXED
    assert large.total > large.weights + large.cache + FIXED


def test_a_forward_pass_has_room_for_a_layer_of_all_heads_a_chunk_of_prefill_and_the_scores() -> None:
    keys_and_values = 2 * 16 * 4097 * (8 + 40) * 128 * 2
    gate_up_and_product = 3 * 512 * 13824 * 2
    scores_and_copies = 8 * 16 * 152064 * 4
    margin = FOOTPRINT_14B.need("bf16", 16, 4096).margin
    assert margin > GIB + keys_and_values + gate_up_and_product + scores_and_copies


SLOTS, CONTEXTS = st.integers(1, 256), st.integers(256, 32768)


@given(st.sampled_from(HELD), SLOTS, CONTEXTS, SLOTS, CONTEXTS)
def test_more_slots_or_context_never_need_less(
    precision: str, slots: int, context: int, other_slots: int, other_context: int
) -> None:
    less = FOOTPRINT_14B.need(precision, min(slots, other_slots), min(context, other_context))
    more = FOOTPRINT_14B.need(precision, max(slots, other_slots), max(context, other_context))
    assert less.total <= more.total
    assert less.cache <= more.cache


@given(
    st.sampled_from(PRECISIONS),
    SLOTS,
    CONTEXTS,
    st.floats(1, 60),
    st.sampled_from([(7, 0), (7, 5), (8, 0), (8, 9), (9, 0)]),
)
def test_a_choice_takes_as_many_slots_as_fit_and_never_more(
    precision: str, slots: int, context: int, free: float, capability: tuple[int, int]
) -> None:
    device = gpu("Card", capability, free)
    try:
        choice = choose(SHALLOW, Settings(precision=precision, slots=slots, context=context), device)
    except SNBError:
        return
    assert choice.need.total <= device.free
    assert 1 <= choice.slots <= slots
    assert choice.need == FOOTPRINT_SHALLOW.need(choice.precision, choice.slots, context)
    if choice.slots < slots:
        one_more = FOOTPRINT_SHALLOW.need(choice.precision, choice.slots + 1, context)
        assert one_more.total > device.free


def test_a_need_reads_in_one_line() -> None:
    need = Need(weights=9 * GIB, cache=12 * GIB, margin=GIB // 2)
    assert str(need) == "21.5 GiB computed: weights 9.0, cache 12.0, margin 0.5"


# The device

WORKING = Evidence("12.8", True, True, "570.86.15", "")
NO_GPU = Evidence("12.8", False, False, None, "Found no NVIDIA driver on your system")
OLD_DRIVER = Evidence("13.0", False, True, "535.104.05", "The NVIDIA driver on your system is too old")
NOT_PASSED = Evidence("12.8", False, False, "570.86.15", "No CUDA GPUs are available")
CPU_TORCH = Evidence(None, False, True, "570.86.15", "Torch not compiled with CUDA enabled")


@pytest.mark.parametrize(
    ("evidence", "wanted", "kind"),
    [
        (WORKING, "auto", "cuda"),
        (WORKING, "cuda", "cuda"),
        (WORKING, "cpu", "cpu"),
        (NO_GPU, "auto", "cpu"),
        (NO_GPU, "cpu", "cpu"),
        (OLD_DRIVER, "cpu", "cpu"),
        (CPU_TORCH, "cpu", "cpu"),
    ],
)
def test_a_usable_device_is_taken_as_asked(evidence: Evidence, wanted: str, kind: str) -> None:
    assert diagnose(evidence, wanted) == kind


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
@pytest.mark.parametrize(
    ("evidence", "fault", "cure"),
    [
        (
            OLD_DRIVER,
            "NVIDIA driver 535.104.05 does not serve this torch, built for CUDA 13.0: "
            "The NVIDIA driver on your system is too old",
            "Update the driver, or install a torch for its CUDA",
        ),
        (
            NOT_PASSED,
            "the machine has NVIDIA driver 570.86.15, but no GPU is passed to this process",
            "Start the container with its GPU (docker run --gpus all)",
        ),
        (
            CPU_TORCH,
            "the installed torch is a CPU-only build",
            "Install a torch that is built for CUDA",
        ),
    ],
    ids=["old driver", "not passed", "CPU torch"],
)
def test_a_gpu_that_is_there_but_unusable_is_refused_with_the_reason(
    evidence: Evidence, fault: str, cure: str, wanted: str
) -> None:
    with pytest.raises(DeviceUnusable) as caught:
        diagnose(evidence, wanted)
    assert caught.value.faults == [fault]
    assert caught.value.cure == f"{cure}. SNB_DEVICE=cpu runs without a GPU"


def test_a_gpu_that_is_demanded_and_absent_is_refused() -> None:
    with pytest.raises(DeviceUnusable, match="this machine shows no NVIDIA driver and no GPU"):
        diagnose(NO_GPU, "cuda")


def test_a_gpu_whose_driver_hides_its_version_is_not_passed_over() -> None:
    with pytest.raises(DeviceUnusable, match="NVIDIA driver of unknown version does not serve this torch"):
        diagnose(replace(OLD_DRIVER, driver_version=None), "auto")


def test_all_that_stands_between_torch_and_the_gpu_is_told_at_once() -> None:
    with pytest.raises(DeviceUnusable) as caught:
        diagnose(replace(CPU_TORCH, devices_visible=False), "auto")
    assert len(caught.value.faults) == 2


def test_this_machine_yields_evidence_and_a_cpu_with_memory() -> None:
    evidence = Evidence.gather()
    assert evidence.available == (evidence.torch_error == "")
    device = Device.find("cpu")
    assert (device.kind, device.capability) == ("cpu", (0, 0))
    assert 0 < device.free <= device.total


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ([], (20 * GIB, 24 * GIB)),
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


def load(folder: Path, choice: Choice) -> Qwen2ForCausalLM:
    """The model as transformers and bitsandbytes load it for a choice."""
    return Qwen2ForCausalLM.from_pretrained(
        folder,
        dtype=choice.compute_dtype,
        quantization_config=quantization(choice.precision, choice.compute_dtype),
        device_map={"": "cpu"},
    )


def stored_bytes(model: Qwen2ForCausalLM) -> int:
    """Bytes of every tensor that a loaded model holds, shared ones once; the table of bitsandbytes that all
    double quantisation shares belongs to no model."""
    tensors = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        if isinstance(module, Linear8bitLt):
            tensors.append(module.weight.SCB)
        if isinstance(module, Linear4bit):
            state = module.weight.quant_state
            tensors += [state.absmax, state.code, state.offset, state.state2.absmax]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


MEASURED = {"T4 (16 GB)": 3, "L4 or A10G (24 GB)": 11}
"""Slots that a boot in nf4 kept, with 14.6 and 22.0 GiB free before it: an H200 with ballast, 2026-11-26."""


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_as_many_slots_are_kept_after_loading_as_were_promised_before(card: Device) -> None:
    choice = choose(QWEN_14B, Settings(), card)
    left = card.free - choice.need.weights - LEFT_BY_LOADING
    assert choice.slots == budget(QWEN_14B, choice, 4096, left) == MEASURED.get(card.name, choice.slots)
    table = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert f"| {card.name} | {choice.precision} | {choice.slots} |" in table


def test_the_cache_is_budgeted_from_what_is_left_after_loading() -> None:
    choice = choose(QWEN_14B, Settings(precision="nf4"), gpu("L4", (8, 9), 22.0))
    assert budget(QWEN_14B, choice, 4096, 80 * GIB) == choice.slots
    counts = [budget(QWEN_14B, choice, 4096, int(left * GIB)) for left in (4, 6, 8, 12)]
    assert counts == sorted(counts)
    assert 1 <= counts[0] < counts[-1]
    with pytest.raises(OutOfMemory, match="left after loading"):
        budget(QWEN_14B, choice, 4096, GIB)


# Memory that others take meanwhile

FULL = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.56 GiB of which 1.24 "
    "GiB is free. Process 7 has 9.00 GiB memory in use. Of the allocated memory 8.42 GiB is allocated by "
    "PyTorch."
)


def exhausted(kind: str) -> None:
    """Each way in which a want of memory shows."""
    if kind == "a real one":
        torch.empty(2**60, dtype=torch.uint8)
    raise {
        "torch": torch.OutOfMemoryError(FULL),
        "CUDA": torch.AcceleratorError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`", 2),
        "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        "Python": MemoryError(),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "figures"),
    [
        ("torch", "of which 1.24 GiB is free. Process 7 has 9.00 GiB memory in use"),
        ("CUDA", "CUDA error: out of memory"),
        ("cuBLAS", "CUBLAS_STATUS_ALLOC_FAILED"),
        ("Python", "an allocation was refused"),
        ("a real one", "you tried to allocate 1152921504606846976 bytes"),
    ],
)
def test_a_want_of_memory_is_named_with_its_figures_and_a_cure(kind: str, figures: str) -> None:
    with pytest.raises(OutOfMemory, match=r"SNB_CONTEXT") as caught, out_of_memory_named("loading in nf4"):
        exhausted(kind)
    [fault] = caught.value.faults
    assert fault.startswith("loading in nf4: ")
    assert figures in fault
    assert "\n" not in fault
    assert "PyTorch" not in fault


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: an illegal memory access"), DeviceUnusable("x")])
def test_other_errors_keep_their_names(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, out_of_memory_named("loading"):
        raise error
    assert caught.value is error


def test_a_boot_whose_memory_is_taken_meanwhile_ends_in_the_named_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "load_merged", lambda *_, **__: exhausted("a real one"))
    settings = Settings(base_model=str(save_tiny(tmp_path)), adapter="none", prepared="none", device="cpu")
    with pytest.raises(OutOfMemory, match=r"loading in fp32, .* GiB computed: .* you tried to allocate"):
        loader.load(settings)
