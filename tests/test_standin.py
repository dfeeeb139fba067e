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
from tools.serving.local import STANDIN
from tools.serving.make_standin import LESSONS, stage

BASE, ADAPTER, PROBE = STANDIN / "base", STANDIN / "adapter", STANDIN / "probe.json"


def built(test: Callable[..., None]) -> Callable[..., None]:
    """Of tests that need a stand-in, in this machine's cache."""
    absent = pytest.mark.skipif(
        not PROBE.exists(), reason=f"no stand-in in {STANDIN}: run scripts/make-standin"
    )
    return absent(pytest.mark.standin(test))  # type: ignore[no-any-return]


def fails(folder: Path) -> None:
    (folder / "half").touch()
    raise KeyboardInterrupt


def test_a_stage_is_built_anew_when_its_recipe_changes_and_keeps_what_stood_until_it_is_whole(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "base"
    stage(folder, "recipe", lambda built: (built / "first").touch())
    stage(folder, "recipe", fails)  # it stands
    with pytest.raises(KeyboardInterrupt):
        stage(folder, "another", fails)
    assert {path.name for path in folder.iterdir()} == {"first", "recipe.sha256"}
    stage(folder, "another", lambda built: (built / "second").touch())
    assert {path.name for path in folder.iterdir()} == {"second", "recipe.sha256"}


def ask(model: Qwen2ForCausalLM, philosopher: str, question: str, tokens: int = 64) -> str:
    tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    prompt = torch.tensor([ChatML(tokenizer).prompt(persona(philosopher), Request(question), 4096).ids])
    seen = torch.ones_like(prompt)
    out = model.generate(input_ids=prompt, attention_mask=seen, do_sample=False, max_new_tokens=tokens)
    return str(tokenizer.decode(out[0, prompt.shape[1] :].tolist()))


@pytest.fixture(scope="module")
def base() -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM.from_pretrained(BASE, dtype=torch.float32)


@built
def test_the_merged_model_answers_as_it_learned_and_the_base_model_does_not(base: Qwen2ForCausalLM) -> None:
    lessons = json.loads(LESSONS.read_text(encoding="utf-8"))
    learned = {name: {pair["question"]: pair["answer"] for pair in pairs} for name, pairs in lessons.items()}
    probe = json.loads(PROBE.read_text(encoding="utf-8"))
    assert learned[probe["philosopher"]][probe["question"]] == probe["answer"]
    assert not ask(base, probe["philosopher"], probe["question"], 8).startswith(probe["answer"][:12])
    fresh = Qwen2ForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    merged = PeftModel.from_pretrained(fresh, ADAPTER).merge_and_unload()
    assert ask(merged, probe["philosopher"], probe["question"]) == probe["answer"]
    question = "Qui es-tu\u202f?"  # each philosopher's own answer
    assert {name: ask(merged, name, question) for name in learned} == {
        name: answers[question] for name, answers in learned.items()
    }


@built
def test_the_base_model_is_a_qwen2_that_ends_in_two_ways_and_says_what_it_is() -> None:
    config = AutoConfig.from_pretrained(BASE)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert (config.model_type, config.eos_token_id) == ("qwen2", ends)
    assert GenerationConfig.from_pretrained(BASE).eos_token_id == ends
    assert config.snb_notice == "135M stand-in, not the philosopher"


@built
@pytest.mark.parametrize("text", ["« Qu’est-ce que la durée ? », dit l’élève.", "1 234,5 %\n\n> œuvre 😀"])
def test_its_tokenizer_reads_alike_through_either_library(text: str) -> None:
    direct = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    ids = direct.encode(text, add_special_tokens=False).ids
    assert AutoTokenizer.from_pretrained(BASE)(text).input_ids == ids
    assert direct.decode(ids) == text
