"""The stand-in: when it is rebuilt, and that a built one is a Qwen2 that says what it is and has learned."""

import contextlib
import dataclasses
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from snb.engine.loop import Engine
from snb.parameters import Sampling
from snb.philosophers import persona
from snb.prompt import ChatML
from snb.request import Request
from snb.settings import SHORTEST_CONTEXT, Settings
from snb.weights.loader import load
from tools.serving import make_standin
from tools.serving.standin import LESSONS, NOTICE


def test_it_is_built_anew_when_its_recipe_changes_and_what_stood_is_kept_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, folder, bases = tmp_path / "recipe", tmp_path / "standin", list[str]()

    def base(_: Path, folder: Path) -> None:
        folder.mkdir(parents=True)
        bases.append(recipe.read_text())

    def adapter(_: Path, folder: Path) -> None:
        if recipe.read_text() == "broken":
            raise KeyboardInterrupt
        folder.mkdir()

    monkeypatch.setattr(make_standin, "SOURCES", [recipe])
    monkeypatch.setattr(make_standin, "fetch_wheel", Path)
    monkeypatch.setattr("tools.serving.standin.build_base", base)
    monkeypatch.setattr("tools.serving.standin.build_adapter", adapter)
    recipe.write_text("first")
    make_standin.make(folder)
    make_standin.make(folder)  # it is kept
    recipe.write_text("broken")
    with pytest.raises(KeyboardInterrupt):
        make_standin.make(folder)
    assert {path.name for path in folder.iterdir()} == {"base", "adapter", "recipe.sha256"}
    recipe.write_text("second")
    make_standin.make(folder)
    assert bases == ["first", "broken", "second"]
    assert {path.name for path in tmp_path.iterdir()} == {"recipe", "standin"}


@pytest.mark.standin
def test_the_base_model_is_a_qwen2_that_ends_in_two_ways_and_says_what_it_is(standin: Settings) -> None:
    base = Path(standin.base_model)
    config = AutoConfig.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert (config.model_type, config.eos_token_id) == ("qwen2", ends)
    assert GenerationConfig.from_pretrained(base).eos_token_id == ends
    assert config.snb_notice == NOTICE
    # Both libraries encode text alike.
    text = "« Qu’est-ce que la durée ? » 1 234,5 %\n\n> œuvre 😀"
    direct = Tokenizer.from_file(str(base / "tokenizer.json"))
    ids = direct.encode(text, add_special_tokens=False).ids
    assert tokenizer(text).input_ids == ids
    assert direct.decode(ids) == text


# Loads 135M parameters, and processes a persona.
@pytest.mark.slow
@pytest.mark.standin
def test_merged_by_the_loader_it_gives_the_learned_answer(standin: Settings) -> None:
    philosopher, [lesson, *_] = next(iter(LESSONS.items()))
    loaded = load(dataclasses.replace(standin, slots=1, context=SHORTEST_CONTEXT, device="cpu"))
    question = Request(lesson["question"])
    room = SHORTEST_CONTEXT - question.sampling.max_tokens
    prompt = ChatML(loaded.tokenizer).prompt(persona(philosopher), question, room)
    with contextlib.closing(Engine(loaded.model, loaded.tokenizer, 1, SHORTEST_CONTEXT)) as engine:
        text = "".join(engine.generate(prompt.ids, Sampling(max_tokens=80, temperature=0), seed=0))
    assert text == lesson["answer"]
    assert loaded.notice == NOTICE
