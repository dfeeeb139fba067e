"""The merge, against PEFT's own: whole state dicts, bit for bit, before and after quantisation."""

import dataclasses
import logging
import weakref
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2ForCausalLM, conversion_mapping

from snb.errors import AdapterMismatch, WeightsMissing
from snb.weights.adapter import WEIGHTS, Adapter
from snb.weights.merge import load_merged, merging
from snb.weights.quantization import quantization
from tests.tiny import tiny_model

# PEFT warns about what these tests do on purpose.
pytestmark = [
    pytest.mark.slow,  # a matrix of models, each merged and compared with PEFT
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning:transformers"),
]

PLAIN: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"]}
KINDS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "patterns": {
        "target_modules": ["q_proj", "k_proj", "down_proj"],
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 8},
        "alpha_pattern": {"k_proj": 3, "^model.layers.0.self_attn.q_proj": 5},
    },
    "rslora": {"target_modules": ["q_proj", "up_proj"], "use_rslora": True, "rank_pattern": {"q_proj": 6}},
    "dora": {"target_modules": ["q_proj", "o_proj", "up_proj"], "use_dora": True},
    "all-linear": {"target_modules": "all-linear"},
    "regex": {"target_modules": r".*\.(q|k)_proj|model\.l", "exclude_modules": r".*layers\.1.*k_proj"},
    "layers": {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    "bias all": {"target_modules": ["q_proj", "o_proj"], "bias": "all"},
    "bias lora_only": {"target_modules": ["q_proj", "o_proj"], "bias": "lora_only"},
    "lora_bias": {**PLAIN, "lora_bias": True},
    "lora_bias on a bias": {**PLAIN, "lora_bias": True, "bias": "all"},
    "saved head": {**PLAIN, "modules_to_save": ["lm_head"]},
    "saved embedding": {**PLAIN, "modules_to_save": ["embed_tokens"]},
    "saved both": {**PLAIN, "modules_to_save": ["embed_tokens", "lm_head"]},
    "saved norms": {**PLAIN, "modules_to_save": ["norm", "input_layernorm"]},
    "bias all of a saved module": {**PLAIN, "modules_to_save": ["k_proj"], "bias": "all"},
}
UNASKED = {
    f"{kind}, with embeddings": {**KINDS[kind], "save_embedding_layers": True}
    for kind in ("plain", "saved head", "saved embedding", "saved both", "bias all of a saved module")
}
EMBEDDED: dict[str, dict[str, Any]] = {
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "head": {"target_modules": ["lm_head", "q_proj"]},
    "both": {"target_modules": ["embed_tokens", "lm_head"]},
    "dora": {"target_modules": ["embed_tokens", "lm_head", "q_proj"], "use_dora": True},
}
ROUNDED = {
    **{kind: KINDS[kind] for kind in ("rslora", "dora", "lora_bias on a bias", "saved both")},
    "embedding": EMBEDDED["embedding"],
    "embedding dora": EMBEDDED["dora"],
}
NF4 = quantization("nf4", torch.float32)
IDS = torch.arange(3, 40)[None]


def base_folder(tmp_path: Path, tied: bool = False, dtype: torch.dtype = torch.float32) -> Path:
    model = tiny_model(tie_word_embeddings=tied).to(dtype)
    model.save_pretrained(tmp_path / "base", max_shard_size="100KB")
    return tmp_path / "base"


def adapter_folder(base: Path, save_embedding_layers: bool | str = "auto", **lora: Any) -> Path:
    """An adapter of this base, made and saved by PEFT, in which every trained tensor has changed."""
    config = LoraConfig(**{"r": 4, "lora_alpha": 7, "task_type": "CAUSAL_LM", **lora})
    model = get_peft_model(plain(base, dtype=torch.float32), config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            assert parameter.requires_grad or "lora" not in name
    model.save_pretrained(base.parent / "adapter", save_embedding_layers=save_embedding_layers)
    return base.parent / "adapter"


def plain(folder: Path, **options: Any) -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM.from_pretrained(folder, **options)


def peft_merged(model: Qwen2ForCausalLM, adapter: Path) -> Qwen2ForCausalLM:
    return PeftModel.from_pretrained(model, adapter).merge_and_unload()


def differing(one: Qwen2ForCausalLM, other: Qwen2ForCausalLM) -> list[str]:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    return [name for name in ours if not torch.equal(ours[name], theirs[name])]


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        scores: Tensor = model(IDS).logits
        return scores


# The same weights as PEFT's merge


@pytest.mark.parametrize(
    ("kind", "tied"),
    [(kind, tied) for kind in (*KINDS, *UNASKED) for tied in {False, kind in UNASKED or "saved" in kind}],
)
def test_in_fp32_the_model_is_bit_identical_to_the_one_that_peft_merges(
    tmp_path: Path, kind: str, tied: bool
) -> None:
    base = base_folder(tmp_path, tied)
    adapter = adapter_folder(base, **{**KINDS, **UNASKED}[kind])
    ours, theirs = load_merged(base, Adapter.read(adapter)), peft_merged(plain(base), adapter)
    assert differing(ours, theirs) == []
    assert differing(ours, plain(base)) != []
    if kind in UNASKED:
        assert any("embed_tokens" in key for key in load_file(adapter / WEIGHTS))
    else:
        assert ours.config.tie_word_embeddings == theirs.config.tie_word_embeddings


@pytest.mark.parametrize(
    ("kind", "replaced"),
    [
        *((kind, []) for kind in EMBEDDED.values()),
        (PLAIN, ["model.embed_tokens.weight"]),
        (PLAIN, ["lm_head.weight"]),
        (PLAIN, ["model.embed_tokens.weight", "lm_head.weight"]),
        (EMBEDDED["embedding"], ["model.embed_tokens.base_layer.weight"]),
        (EMBEDDED["head"], ["lm_head.base_layer.weight"]),
        (EMBEDDED["both"], ["model.embed_tokens.base_layer.weight", "lm_head.base_layer.weight"]),
        (KINDS["saved head"], ["model.embed_tokens.weight"]),
        (KINDS["saved embedding"], ["lm_head.weight"]),
        (KINDS["saved embedding"], ["model.embed_tokens.original_module.weight"]),
    ],
)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_embeddings_that_are_changed_or_replaced_compute_what_peft_s_model_does(
    tmp_path: Path, kind: dict[str, Any], replaced: list[str], tied: bool
) -> None:
    """PEFT's model is not merged: where the base ties embeddings, it has one weight under two names."""
    base = base_folder(tmp_path, tied)
    adapter = adapter_folder(base, **kind)
    changes = {f"base_model.model.{name}": torch.randn(391, 64) for name in replaced}
    save_file({**load_file(adapter / WEIGHTS), **changes}, adapter / WEIGHTS)
    live = PeftModel.from_pretrained(plain(base), adapter)
    torch.testing.assert_close(
        logits(load_merged(base, Adapter.read(adapter))), logits(live), atol=1e-3, rtol=1e-4
    )


@pytest.mark.parametrize("kind", ROUNDED)
def test_in_bf16_each_weight_is_the_fp32_merge_rounded_once(tmp_path: Path, kind: str) -> None:
    """So at most half a step off. PEFT rounds twice for embeddings and for a bias on a bias."""
    base = base_folder(tmp_path, dtype=torch.bfloat16)
    adapter = adapter_folder(base, **ROUNDED[kind])
    ours = load_merged(base, Adapter.read(adapter), dtype=torch.bfloat16)
    truth = peft_merged(plain(base, dtype=torch.float32), adapter)
    assert differing(ours, truth.to(torch.bfloat16)) == []


def test_weights_are_contiguous_and_on_no_file_of_the_adapter(tmp_path: Path) -> None:
    base = base_folder(tmp_path)
    adapter = adapter_folder(base, **EMBEDDED["embedding"], modules_to_save=["lm_head"])
    model = load_merged(base, Adapter.read(adapter))
    before = deepcopy(model.state_dict())
    (adapter / WEIGHTS).write_bytes(b"\0" * (adapter / WEIGHTS).stat().st_size)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert all(weight.is_contiguous() for weight in before.values())


# Then quantised


@pytest.mark.parametrize(
    ("precision", "stored"), [("nf4", torch.uint8), ("int8", torch.int8), ("fp8", torch.float8_e4m3fn)]
)
def test_quantising_comes_after_the_merge(tmp_path: Path, precision: str, stored: torch.dtype) -> None:
    base = base_folder(tmp_path, dtype=torch.bfloat16)
    adapter = adapter_folder(base, **KINDS["all-linear"])
    whole = peft_merged(plain(base, dtype=torch.float32), adapter).to(torch.bfloat16)
    whole.save_pretrained(tmp_path / "whole")
    quantised = quantization(precision, torch.float32)
    options = {"dtype": torch.bfloat16, "quantization_config": quantised, "device_map": "cpu"}
    ours = load_merged(base, Adapter.read(adapter), **options)
    assert differing(ours, plain(tmp_path / "whole", **options)) == []
    assert ours.model.layers[0].self_attn.q_proj.weight.dtype == stored


def test_one_full_weight_is_alive_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_folder(tmp_path)
    adapter = Adapter.read(adapter_folder(base, target_modules="all-linear"))
    seen: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def watched(self: Adapter, name: str, weight: Tensor) -> Tensor:
        alive.append(sum(ref() is not None for ref in seen))
        merged = apply(self, name, weight)
        if name in self.changes:
            seen.extend([weakref.ref(weight), weakref.ref(merged)])
        return merged

    apply = Adapter.apply
    monkeypatch.setattr(Adapter, "apply", watched)
    model = load_merged(base, adapter, quantization_config=NF4, device_map="cpu")
    assert len(seen) == 2 * len(adapter.changes)
    assert model.is_loaded_in_4bit
    assert set(alive) == {0}


# No trace


def registry() -> tuple[Any, ...]:
    conversion_mapping.get_checkpoint_conversion_mapping("qwen2")
    cache = conversion_mapping._checkpoint_conversion_mapping_cache
    return {name: id(entry) for name, entry in cache.items()}, {*conversion_mapping.USER_REGISTERED_MAPPINGS}


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_a_merge_leaves_no_trace_and_a_failure_in_it_surfaces_as_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        calls.append(1)
        raise error

    base = base_folder(tmp_path)
    adapter, calls = Adapter.read(adapter_folder(base, **PLAIN)), list[int]()
    before, first, merged = registry(), load_merged(base, None), load_merged(base, adapter)
    assert registry() == before
    assert differing(first, merged) != []
    with monkeypatch.context() as patch:
        patch.setattr(Adapter, "apply", fail)
        with pytest.raises(type(error)) as raised:
            load_merged(base, adapter)
    assert raised.value is error
    assert len(calls) == 1
    assert registry() == before
    assert differing(first, load_merged(base, None)) == []


def test_a_merged_model_saves_and_loads_as_itself(tmp_path: Path) -> None:
    base = base_folder(tmp_path, tied=True)
    merged = load_merged(base, Adapter.read(adapter_folder(base, **EMBEDDED["head"])))
    merged.save_pretrained(tmp_path / "merged")
    again = load_merged(tmp_path / "merged", None)
    assert differing(again, merged) == []
    assert not again.config.tie_word_embeddings


# Refusals


def test_an_adapter_that_does_not_fit_is_refused_before_anything_loads_or_when_a_part_meets_no_weight(
    tmp_path: Path,
) -> None:
    base = base_folder(tmp_path)
    adapter = Adapter.read(adapter_folder(base, **PLAIN))
    tiny_model(num_hidden_layers=1).save_pretrained(tmp_path / "shallow")
    (tmp_path / "shallow" / "model.safetensors").write_bytes(b"")
    with pytest.raises(AdapterMismatch, match="changes a weight that the base does not have"):
        load_merged(tmp_path / "shallow", adapter)
    plain(base, quantization_config=NF4, device_map="cpu").save_pretrained(tmp_path / "small")
    with pytest.raises(AdapterMismatch, match="the base is quantised already"):
        load_merged(tmp_path / "small", adapter)
    ghost = {"model.ghost.weight": next(iter(adapter.changes.values()))}
    more = dataclasses.replace(adapter, changes={**adapter.changes, **ghost})
    with pytest.raises(AdapterMismatch, match=r"model\.ghost\.weight was not merged"), merging(more):
        plain(base)


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"bias": "all"}])
def test_an_adapter_that_leaves_every_weight_as_it_was_is_refused(
    tmp_path: Path, lora: dict[str, Any]
) -> None:
    """Untrained, it holds magnitudes, a module or biases equal to the base's, as only the base can show."""
    base = base_folder(tmp_path)
    get_peft_model(plain(base), LoraConfig(**PLAIN, **lora)).save_pretrained(tmp_path / "adapter")
    with pytest.raises(AdapterMismatch, match="the adapter changes nothing"):
        load_merged(base, Adapter.read(tmp_path / "adapter"))


def test_a_base_that_is_truncated_is_refused(tmp_path: Path) -> None:
    base = base_folder(tmp_path)
    shard = next(base.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(WeightsMissing, match="a file of the base is absent or damaged"):
        load_merged(base, None)


def test_weights_that_are_absent_or_unknown_are_all_named_in_the_error_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights of the wrong shape are refused earlier, by `inspect`."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    adapter = Adapter.read(adapter_folder(base_folder(tmp_path), **PLAIN))
    tiny_model().save_pretrained(tmp_path / "spoilt")
    file = tmp_path / "spoilt" / "model.safetensors"
    weights = load_file(file) | {"model.norm.bias": torch.ones(64)}
    del weights["lm_head.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    for merged in (adapter, None):
        with pytest.raises(WeightsMissing) as refused:
            load_merged(tmp_path / "spoilt", merged)
        assert refused.value.faults == [
            "lm_head.weight is absent",
            "model.norm.bias is not part of the model",
        ]
    assert not caplog.records


def test_a_tied_checkpoint_that_also_holds_the_head_keeps_its_own(tmp_path: Path) -> None:
    base = base_folder(tmp_path, tied=True)
    adapter = Adapter.read(adapter_folder(base, **EMBEDDED["head"]))
    expected = load_merged(base, adapter)
    tiny_model(tie_word_embeddings=True).save_pretrained(tmp_path / "both")
    weights = load_file(tmp_path / "both" / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "both" / "model.safetensors", metadata={"format": "pt"})
    assert differing(load_merged(tmp_path / "both", adapter), expected) == []
