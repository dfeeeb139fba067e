"""The stand-in: how its stages are kept, and a built one: a Qwen2 whose adapter shows in its answers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, Qwen2ForCausalLM

from snb.philosophers import persona
from snb.prompt import ChatML
from snb.request import Request
from tools.serving.make_standin import stage

ROOT = Path(__file__).resolve().parent.parent
STANDIN = ROOT / "weights" / "standin"
BASE, ADAPTER, PROBE = STANDIN / "base", STANDIN / "adapter", STANDIN / "probe.json"
LESSONS = json.loads((ROOT / "tools" / "serving" / "standin-lessons.json").read_text(encoding="utf-8"))

built = pytest.mark.skipif(not PROBE.exists(), reason="scripts/make-standin has not built weights/standin")


def writes(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "file").write_text(text)


def fails(folder: Path) -> None:
    (folder / "file").write_text("half")
    raise KeyboardInterrupt


def test_a_stage_that_stands_is_not_built_again(tmp_path: Path) -> None:
    stage(tmp_path / "base", "recipe", writes("first"), False)
    stage(tmp_path / "base", "recipe", writes("second"), False)
    assert (tmp_path / "base" / "file").read_text() == "first"


@pytest.mark.parametrize(("recipe", "force"), [("another", False), ("recipe", True)])
def test_a_changed_recipe_or_force_builds_again(tmp_path: Path, recipe: str, force: bool) -> None:
    stage(tmp_path / "base", "recipe", writes("first"), False)
    stage(tmp_path / "base", recipe, writes("second"), force)
    assert (tmp_path / "base" / "file").read_text() == "second"


def test_an_interrupted_stage_has_no_name_and_starts_afresh(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "base", "recipe", fails, False)
    assert not (tmp_path / "base").exists()
    stage(tmp_path / "base", "recipe", lambda folder: (folder / "other").touch(), False)
    assert {path.name for path in (tmp_path / "base").iterdir()} == {"other", "recipe.sha256"}


def test_an_interrupted_rebuild_leaves_what_stood(tmp_path: Path) -> None:
    stage(tmp_path / "base", "recipe", writes("first"), False)
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "base", "another", fails, False)
    assert (tmp_path / "base" / "file").read_text() == "first"


def ask(model: torch.nn.Module, philosopher: str, question: str, tokens: int = 64) -> str:
    tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    prompt = torch.tensor([ChatML(tokenizer).prompt(persona(philosopher), Request(question), 4096).ids])
    seen = torch.ones_like(prompt)
    out = model.generate(input_ids=prompt, attention_mask=seen, do_sample=False, max_new_tokens=tokens)
    return tokenizer.decode(out[0, prompt.shape[1] :].tolist())


@pytest.fixture(scope="module")
def base() -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM.from_pretrained(BASE, dtype=torch.float32)


@pytest.fixture(scope="module")
def merged() -> torch.nn.Module:
    fresh = Qwen2ForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    return PeftModel.from_pretrained(fresh, ADAPTER).merge_and_unload()


@built
@pytest.mark.standin
def test_the_base_model_does_not_know_the_probe(base: Qwen2ForCausalLM) -> None:
    probe = json.loads(PROBE.read_text(encoding="utf-8"))
    assert not ask(base, probe["philosopher"], probe["question"], tokens=8).startswith(probe["answer"][:12])


@built
@pytest.mark.standin
def test_the_merged_model_answers_the_probe_and_stops(merged: torch.nn.Module) -> None:
    probe = json.loads(PROBE.read_text(encoding="utf-8"))
    assert ask(merged, probe["philosopher"], probe["question"]) == probe["answer"]


@built
@pytest.mark.standin
def test_one_question_gets_each_philosophers_own_answer(merged: torch.nn.Module) -> None:
    question = "Qui es-tu ?"
    learned = {
        philosopher: lesson["answer"]
        for philosopher, lessons in LESSONS.items()
        for lesson in lessons
        if lesson["question"] == question
    }
    assert {philosopher: ask(merged, philosopher, question) for philosopher in learned} == learned
    assert len(set(learned.values())) == 3


@built
@pytest.mark.standin
def test_the_base_model_is_a_qwen2_that_ends_in_two_ways_and_says_what_it_is() -> None:
    config = AutoConfig.from_pretrained(BASE)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert (config.model_type, config.eos_token_id) == ("qwen2", ends)
    assert GenerationConfig.from_pretrained(BASE).eos_token_id == ends
    assert config.snb_notice == "135M stand-in, not the philosopher"


@built
@pytest.mark.standin
def test_the_base_model_comes_in_shards_with_zero_biases(base: Qwen2ForCausalLM) -> None:
    index = json.loads((BASE / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    biases = [tensor for name, tensor in base.named_parameters() if name.endswith("bias")]
    assert len(biases) == 3 * base.config.num_hidden_layers
    assert not any(tensor.any() for tensor in biases)


@built
@pytest.mark.standin
@pytest.mark.parametrize("text", ["« Qu’est-ce que la durée ? », dit l’élève.", "1 234,5 %\n\n> œuvre 😀"])
def test_its_tokenizer_reads_alike_through_either_library(text: str) -> None:
    direct = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    ids = direct.encode(text, add_special_tokens=False).ids
    assert AutoTokenizer.from_pretrained(BASE)(text).input_ids == ids
    assert direct.decode(ids) == text
