"""What only a GPU can show; scripts/gpu-report runs these, and boots the whole 14B besides."""

import gc
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from snb.card import FLOATS, Device, Footprint
from snb.engine.loop import Engine
from snb.engine.paths import PATHS, Graphs
from snb.engine.recording import Recorder
from snb.engine.rowwise import FP8, Rowwise, quantised
from snb.engine.sampling import Sampler
from snb.engine.script import Script
from snb.engine.slots import SlotModel
from snb.parameters import Sampling
from snb.request import Request
from snb.self_test.reference import scores
from snb.self_test.rounding import divergence
from snb.service import Service
from snb.settings import Settings
from snb.weights.loader import Loaded, load
from snb.weights.quantization import HELD
from tests.test_engine import reference
from tests.tiny import save_tiny, tiny_model
from tools.benchmarking import random_weights

KIND = "cuda"
GRAPHS = "graphs"
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8", "nf4")
PROMPTS = [list(range(3, 3 + length)) for length in (5, 40, 17, 64, 9, 130)]
AMPERE = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
since_ampere = pytest.mark.skipif(not AMPERE, reason="Triton needs compute capability 8.0")
each_path = pytest.mark.parametrize("path", [GRAPHS, "eager", pytest.param("fused", marks=since_ampere)])
GREEDY = Sampling(max_tokens=24, min_tokens=24, temperature=0, repetition_penalty=1)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Frees the memory that a test took, for the next."""
    yield
    gc.collect()
    torch.cuda.empty_cache()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder / "base", max_position_embeddings=4096)
    return folder


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and an adapter with four layers of the 14B's full shape."""
    folder = tmp_path_factory.mktemp("wide")
    try:
        random_weights.make(folder, random_weights.configuration({"num_hidden_layers": 4}))
    except OSError as error:
        pytest.skip(str(error))
    return folder


def skip_unless_it_fits(config: Qwen2Config, precision: str) -> None:
    """Skips the test unless the model fits the card with four slots of 4096 tokens."""
    device, need = Device.find(KIND), Footprint(config).need(precision, 4, 4096)
    if not device.runs(precision):
        pytest.skip(f"this card does not compute in {precision}")
    if device.free < need.total:
        pytest.skip(f"{need}; {device.free / 2**30:.1f} GiB are free")


def loaded(folder: Path, precision: str, kind: str = KIND) -> Loaded:
    """The model of a folder, as a boot loads it; skips the test if the device lacks the precision."""
    if not Device.find(kind).runs(precision):
        pytest.skip(f"this card does not compute in {precision}")
    base = str(folder / "base")
    return load(Settings(base, adapter="none", precision=precision, device=kind, slots=4, context=512))


def test_bf16_is_for_cards_that_compute_in_it_and_not_for_those_that_emulate_it() -> None:
    device = Device.find(KIND)
    assert device.half == ("bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16")
    assert device.runs("bf16") == (device.half == "bf16")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_card_holds_the_weights_of_the_cpu_and_rounds_no_more(tiny: Path, precision: str) -> None:
    exact, rounding = {}, {}
    for kind in ("cpu", KIND):
        model, ids = loaded(tiny, precision, kind).model, torch.tensor([PROMPTS[3]], device=kind)
        exact[kind] = scores(model, ids)[0].cpu()
        with torch.inference_mode():
            own = model(ids).logits[0].float().cpu()
        rounding[kind] = divergence(own, exact[kind]).mean()
    assert divergence(exact[KIND], exact["cpu"]).mean() <= rounding["cpu"] + 1e-4
    assert rounding[KIND] <= 3 * rounding["cpu"] + 1e-4


@pytest.mark.parametrize("tokens", [1, 17, 512])
@pytest.mark.parametrize(("outputs", "inputs"), [(7168, 5120), (5120, 5120), (27648, 5120), (5120, 13824)])
@pytest.mark.parametrize("precision", HELD)
def test_products_of_8_bits_in_the_14b_s_shapes_are_those_of_the_dequantised_numbers(
    precision: str, outputs: int, inputs: int, tokens: int
) -> None:
    """Within one rounding of the result, also in a graph; and no token's result depends on the others."""
    if not Device.find(KIND).runs(precision):
        pytest.skip(f"this card does not compute in {precision}")
    torch.manual_seed(0)
    values, scales = quantised(torch.randn(outputs, inputs, device=KIND), HELD[precision])
    bias = torch.nn.Parameter(torch.randn(outputs, device=KIND).to(FLOATS[Device.find(KIND).half]), False)
    layer = Rowwise(values, scales[:, 0], bias)
    states = torch.randn(tokens, inputs, device=KIND).to(bias.dtype)
    exact = states.float()
    if precision == "fp8":
        exact, own = (one.float() for one in quantised(states, FP8))
        exact *= own
    expected = exact @ layer.dequantised(torch.float32).T + bias
    with torch.inference_mode():
        result = layer(states)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            replayed = layer(states)
        graph.replay()
        assert torch.equal(replayed, result)
        states[1:] = 1000
        assert torch.equal(layer(states)[0], result[0])
    assert (result - expected).norm() <= torch.finfo(bias.dtype).eps * expected.norm()


@each_path
def test_greedy_tokens_equal_those_of_generate_however_many_ask(
    path: str, started: Callable[..., Engine]
) -> None:
    model = tiny_model().to(KIND)
    engine = started(model, context=512, path=PATHS[path])
    generations = [engine.generate(prompt, GREEDY, seed=0) for prompt in PROMPTS]
    for generation in generations:
        assert "".join(generation)
    expected = [reference(model, prompt, 24, min_new_tokens=24) for prompt in PROMPTS]
    assert [generation.tokens for generation in generations] == expected


@pytest.mark.parametrize(
    ("size", "precision"), [*product(["tiny"], PRECISIONS), *product(["wide"], PRECISIONS[1:])]
)
def test_a_boot_answers_by_graphs(size: str, precision: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(size)
    skip_unless_it_fits(Qwen2Config.from_pretrained(folder / "base"), precision)
    base, adapter = str(folder / "base"), str(folder / "adapter") if size == "wide" else "none"
    settings = Settings(base, adapter=adapter, prepared="none", precision=precision, device=KIND, slots=4)
    service = Service(settings)
    asked = Request.checked(user_message="Que dois-je faire ?", max_tokens=24, min_tokens=24)
    try:
        assert "".join(service.answer(asked, lambda *_: None))
        assert service.boot.path == GRAPHS
    finally:
        service._engine.close()


@since_ampere
def test_compiled_kernels_are_those_of_torch_in_the_shapes_of_the_14b() -> None:
    from tests import test_kernels as kernels

    half, heads = torch.bfloat16, (40, 8, 128)
    kernels.test_adding_and_norm_are_those_of_torch(5120, half)
    kernels.test_gates_are_those_of_torch(13824, half)
    kernels.test_rotation_and_the_cache_are_those_of_torch_bit_for_bit(heads, half)
    kernels.test_attention_reads_each_row_to_its_position_as_torch_does(heads, half)
    kernels.test_a_row_has_the_same_bits_alone_and_among_others(heads)


@since_ampere
@pytest.mark.parametrize("precision", ["bf16", "fp8", "nf4"])
def test_a_boot_answers_by_the_fused_step_where_it_is_set(precision: str, wide: Path) -> None:
    skip_unless_it_fits(Qwen2Config.from_pretrained(wide / "base"), precision)
    how: dict[str, Any] = {"precision": precision, "device": KIND, "slots": 32, "path": "fused"}
    service = Service(Settings(str(wide / "base"), adapter=str(wide / "adapter"), prepared="none", **how))
    asked = Request.checked(user_message="Que dois-je faire ?", max_tokens=24, min_tokens=24)
    try:
        assert "".join(service.answer(asked, lambda *_: None))
        assert service.boot.path == "fused"
        graphs = service._engine.step
        assert isinstance(graphs, Graphs)
        assert len(graphs.sizes) == {"bf16": 1, "fp8": 1, "nf4": 6}[precision]
    finally:
        service._engine.close()


def test_no_step_waits_for_the_device() -> None:
    """Checked by PyTorch's own mode that makes hidden synchronisation an error."""
    model = SlotModel(tiny_model().to(KIND), slots=3, context=256)
    sampler = Sampler(3, 256, Script([b"a"] * 391, [0], torch.device(KIND)))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for row, top_k in enumerate((20, 0, 1000)):
            sampler.start(row, [5, 6], Sampling(top_k=top_k), seed=7)
        sampler.choose(model.prefill([2, 0], [[5, 6], [7]], [0, 0]), [0, 2])
        sampler.choose(model.step(sampler.ids, sampler.positions, 64), range(3))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("attention", "finite"), [("sdpa", True), ("eager", False)])
def test_fp16_overflows_in_eager_attention_and_not_in_the_one_that_is_loaded(
    tiny: Path, attention: str, finite: bool
) -> None:
    """With queries and keys whose products exceed the range of fp16 until they are scaled down."""
    model = loaded(tiny, "fp16").model
    for layer in model.model.layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            projection.bias.data.fill_(90.0)  # 16 x 90 x 90 is 129,600; fp16 ends at 65,504
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation(attention)
    with torch.inference_mode():
        scores = model(torch.tensor([PROMPTS[3]], device=KIND)).logits
    assert bool(scores.isfinite().all()) == finite


@each_path
def test_slots_run_to_the_end_of_their_context_in_no_more_memory_than_was_computed(
    path: str, started: Callable[..., Engine]
) -> None:
    config, half = random_weights.configuration({"num_hidden_layers": 2}), Device.find(KIND).half
    skip_unless_it_fits(config, half)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    with torch.device(KIND):
        model = Qwen2ForCausalLM._from_config(config, dtype=FLOATS[half]).eval()
    engine = started(model, context=2048, path=PATHS[path])
    longest = Sampling(max_tokens=64, min_tokens=64)
    generations = [engine.generate(list(range(2016)), longest, seed) for seed in range(4)]
    for generation in generations:
        "".join(generation)
    assert [len(generation.tokens) for generation in generations] == [32] * 4
    need = Footprint(config).need(half, slots=4, context=2048)
    assert torch.cuda.max_memory_reserved() - before <= need.total


def test_recordings_share_one_workspace_of_cublas() -> None:
    """The workspace is 8 MiB or more; each recording adds only its own result."""
    matrix, recorder = torch.ones(64, 64, device=KIND), Recorder(torch.device(KIND))
    replays = [recorder(lambda: matrix @ matrix)]
    before = torch.cuda.memory_allocated()
    replays += [recorder(lambda: matrix @ matrix) for _ in range(3)]
    assert torch.cuda.memory_allocated() < before + 2**20
    assert all(replay().eq(64).all() for replay in replays)


class Looks(SlotModel):
    """A model whose step reads a number back to the CPU, which no graph can record."""

    def step(self, ids: torch.Tensor, positions: torch.Tensor, columns: int) -> torch.Tensor:
        scores = super().step(ids, positions, columns)
        assert scores[0, 0].item() < torch.inf
        return scores


def reserved() -> int:
    """Bytes that torch reserves, after freeing cuBLAS's workspaces, one per stream, which stay otherwise."""
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved()


def test_a_recording_that_fails_leaves_stream_generator_and_memory_as_they_were() -> None:
    model = Looks(tiny_model().to(KIND), slots=2, context=256)
    model.decode([5, 6], [0, 0])
    stream, state, before = torch.cuda.current_stream(), torch.cuda.get_rng_state(), reserved()
    with pytest.raises(RuntimeError):
        PATHS[GRAPHS](model)
    assert torch.cuda.current_stream() == stream
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert torch.randn(3, device=KIND).isfinite().all()
    assert reserved() <= before
