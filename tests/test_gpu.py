"""What only a GPU can show, on models that any card holds; scripts/gpu-report runs these and much more."""

from pathlib import Path

import pytest
import torch
from tiny import save_tiny, tiny_model
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from snb.engine import PREFILL_TOKENS, Engine
from snb.loader import Loaded, load
from snb.memory import Footprint
from snb.paths import PATHS, candidates, fastest
from snb.precision import Device
from snb.request import Sampling
from snb.self_test import TOLERANCE, divergence, self_test
from snb.settings import Settings
from snb.slots import SlotModel

KIND = "cuda"
GRAPHS = "graphs"
PROMPTS = [list(range(3, 3 + length)) for length in (5, 40, 17, 64, 9, 130)]
GREEDY = Sampling(max_tokens=24, min_tokens=24, temperature=0, repetition_penalty=1)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"))


def loaded(folder: Path, precision: str, kind: str = KIND) -> Loaded:
    """The tiny model, as a boot loads it."""
    if not Device.find(kind).runs(precision):
        pytest.skip(f"this card does not compute in {precision}")
    settings = Settings(
        base_model=str(folder), adapter="none", precision=precision, device=kind, slots=4, context=512
    )
    return load(settings)


def expected(model: Qwen2ForCausalLM, prompt: list[int]) -> list[int]:
    """The tokens of plain `generate`, of which the engine never draws <|im_start|>."""
    ids = torch.tensor([prompt], device=model.device)
    options = {"max_new_tokens": 24, "min_new_tokens": 24, "do_sample": False, "suppress_tokens": [1]}
    output = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    return output[0, len(prompt) :].tolist()


def test_bf16_is_for_cards_that_compute_in_it_and_not_for_those_that_emulate_it() -> None:
    device = Device.find(KIND)
    assert device.half == ("bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16")
    assert device.runs("bf16") == (device.half == "bf16")


@pytest.mark.parametrize("precision", TOLERANCE)
def test_the_kernels_of_the_card_compute_what_those_of_the_cpu_do(folder: Path, precision: str) -> None:
    ids = torch.tensor([PROMPTS[3]])
    with torch.inference_mode():
        card, cpu = (
            one.model(ids.to(one.model.device)).logits[0].float().cpu()
            for one in (loaded(folder, precision), loaded(folder, precision, "cpu"))
        )
    assert max(map(divergence, card, cpu)) <= TOLERANCE[precision]


@pytest.mark.parametrize("path", [GRAPHS, "eager"])
def test_greedy_tokens_equal_those_of_generate_however_many_ask(
    path: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = tiny_model().to(KIND)
    engine = Engine(model, tokenizer.backend_tokenizer, slots=4, context=512, path=PATHS[path])
    try:
        generations = [engine.generate(prompt, GREEDY, seed=0) for prompt in PROMPTS]
        texts = ["".join(generation) for generation in generations]
    finally:
        engine.close()
    assert all(texts)
    assert [g.tokens for g in generations] == [expected(model, prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("precision", TOLERANCE)
def test_in_each_precision_some_path_passes_the_self_test(folder: Path, precision: str) -> None:
    one = loaded(folder, precision)

    def start(path: str) -> Engine:
        engine = Engine(one.model, one.tokenizer, one.slots, 512, path=PATHS[path])
        try:
            self_test(engine, one.model, PROMPTS[3], precision)
        except BaseException:
            engine.close()
            raise
        return engine

    engine = fastest(candidates("auto", KIND), start)
    try:
        assert "".join(engine.generate(PROMPTS[0], GREEDY, seed=0))
    finally:
        engine.close()


def overflowing(folder: Path) -> Qwen2ForCausalLM:
    """In fp16, with queries and keys whose products exceed what fp16 holds until they are scaled down."""
    model = loaded(folder, "fp16").model
    for layer in model.model.layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            projection.bias.data.fill_(90.0)  # 16 x 90 x 90 is 129,600; fp16 ends at 65,504
    return model


@pytest.mark.parametrize(("attention", "finite"), [("sdpa", True), ("eager", False)])
def test_fp16_overflows_in_eager_attention_and_not_in_the_one_that_is_loaded(
    folder: Path, attention: str, finite: bool
) -> None:
    model = overflowing(folder)
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation(attention)
    with torch.inference_mode():
        scores = model(torch.tensor([PROMPTS[3]], device=KIND)).logits
    assert bool(scores.isfinite().all()) == finite


@pytest.mark.parametrize("path", [GRAPHS, "eager"])
def test_weights_cache_and_passes_take_no_more_memory_than_was_computed(path: str) -> None:
    # Layers as wide as those of the 14B, but two.
    sizes = {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 2, "vocab_size": 152064}
    config = Qwen2Config(**sizes, num_attention_heads=40, num_key_value_heads=8, tie_word_embeddings=False)
    device = Device.find(KIND)
    need = Footprint(config).need(device.half, slots=4, context=2048)
    if device.free < need.total:
        pytest.skip("other processes hold this card's memory")
    dtype = torch.bfloat16 if device.half == "bf16" else torch.float16
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    with torch.device(KIND):
        model = Qwen2ForCausalLM._from_config(config, dtype=dtype).eval()
    assert torch.cuda.memory_allocated() - allocated == pytest.approx(need.weights, rel=0.01)
    fill(SlotModel(model, 4, 2048, PATHS[path]))
    assert torch.cuda.max_memory_reserved() - reserved <= need.total


def fill(model: SlotModel) -> None:
    """Reads a long prompt into every row, then decodes at the end of the context."""
    for row in range(4):
        for start in range(0, 2048 - PREFILL_TOKENS, PREFILL_TOKENS):
            model.prefill([row], [list(range(PREFILL_TOKENS))], [start])
    model.decode([5, 6, 7, 8], [2047] * 4)
