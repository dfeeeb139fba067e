"""The stand-in: how it is kept, and a built one: a Qwen2 that says what it is. test_server.py asks it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from tools.serving import make_standin, standin
from tools.serving.local import STANDIN

BASE = STANDIN / "base"


def built(test: Callable[..., None]) -> Callable[..., None]:
    """Of tests that need a stand-in, in this machine's cache."""
    absent = pytest.mark.skipif(
        not BASE.exists(), reason=f"no stand-in in {STANDIN}: run scripts/make-standin"
    )
    return absent(pytest.mark.standin(test))  # type: ignore[no-any-return]


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
    monkeypatch.setattr(standin, "build_base", base)
    monkeypatch.setattr(standin, "build_adapter", adapter)
    recipe.write_text("first")
    make_standin.make(folder)
    make_standin.make(folder)  # it stands
    recipe.write_text("broken")
    with pytest.raises(KeyboardInterrupt):
        make_standin.make(folder)
    assert {path.name for path in folder.iterdir()} == {"base", "adapter", "recipe.sha256"}
    recipe.write_text("second")
    make_standin.make(folder)
    assert bases == ["first", "broken", "second"]
    assert {path.name for path in tmp_path.iterdir()} == {"recipe", "standin"}


@built
def test_the_base_model_is_a_qwen2_that_ends_in_two_ways_and_says_what_it_is() -> None:
    config = AutoConfig.from_pretrained(BASE)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert (config.model_type, config.eos_token_id) == ("qwen2", ends)
    assert GenerationConfig.from_pretrained(BASE).eos_token_id == ends
    assert config.snb_notice == standin.NOTICE
    # Read alike through either library.
    text = "« Qu’est-ce que la durée ? » 1 234,5 %\n\n> œuvre 😀"
    direct = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    ids = direct.encode(text, add_special_tokens=False).ids
    assert tokenizer(text).input_ids == ids
    assert direct.decode(ids) == text
