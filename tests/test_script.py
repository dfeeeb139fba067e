"""No token without text is drawn, and none outside the scripts of French, whole or byte by byte."""

from contextlib import closing
from dataclasses import replace

import pytest
import regex
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from snb.engine.detokenizer import Detokenizer, pieces
from snb.engine.loop import Engine
from snb.engine.script import ANY, BEGINNINGS, FORBIDDEN, FRENCH, STATES, Script, unfinished
from snb.parameters import Sampling
from tests.tiny import tiny_model

SAID = (
    "« L’œil, ça ? » — Ô Dieu : être… “conatus”, ‘à’ – ﬁn, É, ÿ, ñ, Ÿ, 5 €, № 2, © • a\u2011b 1\u202f000",
    "XXᵉ siècle, 1ᵉʳ, 1ʳᵉ, 2ᵈᵉ, Mᵐᵉ, Mˡˡᵉ, Dʳ, nᵒ, 2ⁿ, x₁",
    "αἰτία, λόγος, ὕβρις, ᾧ, ψυχή ; conātus, n̥ ; ♭ ♯",
    "½ ≠ 3 → ⇒ ⟶ ➜ ↔ ∀x ∈ ℝ, √2 ≤ ∞, ⌊x⌋ ⟨a|b⟩ ∑ ⊢ ⨯ │ ─ ■ ●\n\t",
)
"""Texts that a philosopher may write."""
UNSAID = (
    "你好 これは カナ 한국어 привет שלום سلام हिन्दी ไทย 。，（ ϣϥϧ ⲁⲃ ⠁⠃",
    "🙂 ✅✨❌❤☺☀⭐⚡⌚⏰❓❗➕▶⬅ 1\u20e3 \ufe0f",
    "\0 \x1b \r \x7f \x85 \xad \u034f \u200b \u200d \u200e \u2028 \u202e \u2066 \ufeff \ue000 \ufffd",
)
SPARE = 399
"""Number of ids without a token: 151,665 of Qwen2.5's 152,064 have one."""


class Bench:
    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer.backend_tokenizer
        self.vocabulary = len(tokenizer) + SPARE
        self.ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
        self.pieces = pieces(self.tokenizer, self.vocabulary)
        self.script = Script(self.pieces, self.ends, torch.device("cpu"))

    def forbidden(self, pending: bytes) -> torch.Tensor:
        """Which tokens may not follow these first bytes of a character in French; a mask."""
        return self.script.after[STATES[pending]] == FORBIDDEN

    def can_say(self, text: str) -> bool:
        """Whether every token of a text is allowed in its place."""
        detokenizer, state = Detokenizer(self.pieces), 0
        for token in self.tokenizer.encode(text, add_special_tokens=False).ids:
            if self.forbidden(detokenizer.pending)[token]:
                return False
            detokenizer.push(token)
            state = int(self.script.after[state, token])
            assert state == STATES[detokenizer.pending]
        return not detokenizer.pending


def textless_ids(bench: Bench) -> list[int]:
    """Ids that are never drawn, whatever the script."""
    return (bench.script.after[ANY] == FORBIDDEN).nonzero().flatten().tolist()


@pytest.fixture(scope="session")
def bench(each_tokenizer: PreTrainedTokenizerFast) -> Bench:
    return Bench(each_tokenizer)


def test_french_greek_latin_and_signs_can_be_said_and_no_other_script_emoji_or_unseen(bench: Bench) -> None:
    assert [text for text in SAID if not bench.can_say(text)] == []
    assert [one for one in "".join(UNSAID) if one not in " 1" and bench.can_say(one)] == []


@given(st.characters(exclude_categories=["Cs"]) | st.sampled_from(sorted(FRENCH)))
def test_a_character_can_be_said_if_and_only_if_it_is_french(bench: Bench, character: str) -> None:
    if bench.tokenizer.normalizer.normalize_str(character) == character:
        assert bench.can_say(character) == (character in FRENCH)


def test_by_unicode_s_own_data_what_is_french_is_of_no_other_script_no_emoji_and_can_be_seen() -> None:
    scripts = regex.compile(r"[\p{Latin}\p{Greek}\p{Common}\p{Inherited}]+")
    assert scripts.fullmatch("".join(FRENCH))
    assert not regex.findall(r"\p{Emoji_Presentation}|[\p{Emoji}--[\0-\u22ff]]", "".join(FRENCH), regex.V1)
    assert not regex.findall(r"[\p{Default_Ignorable_Code_Point}\p{C}--[\n\t]]", "".join(FRENCH), regex.V1)
    greek_and_latin = regex.compile(r"[[\p{Latin}\p{Greek}]&&[\p{L}]]", regex.V1)
    assert FRENCH.issuperset(filter(greek_and_latin.match, map(chr, range(0x370))))


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(sorted(FRENCH)), min_size=1))
def test_the_beginning_of_what_fits_fits(text: str) -> None:
    data = text.encode()
    assert (unfinished(data) == b"") == FRENCH.issuperset(text)
    if unfinished(data) == b"":
        assert all(unfinished(data[:end]) is not None for end in range(len(data) + 1))


def test_of_the_ids_without_text_only_the_end_tokens_may_be_drawn(bench: Bench) -> None:
    added = set(bench.tokenizer.get_added_tokens_decoder())
    unused = set(range(bench.tokenizer.get_vocab_size(), bench.vocabulary))
    textless = (added | unused) - set(bench.ends)
    assert set(textless_ids(bench)) == textless
    assert bench.forbidden(b"")[sorted(textless)].all()
    assert not bench.forbidden(b"")[bench.ends].any()


def test_a_part_in_the_middle_of_a_character_cannot_begin_one_nor_an_answer_end_there(bench: Bench) -> None:
    parts = [token for token, piece in enumerate(bench.pieces) if piece[:1] == b"\x93"]
    assert parts
    assert bench.forbidden(b"")[parts].all()
    assert not bench.forbidden("œ".encode()[:1])[bench.pieces.index(b"\x93")]
    for pending in BEGINNINGS - {b""}:
        forbidden = bench.forbidden(pending)
        assert forbidden[bench.ends].all()
        assert not forbidden.all()


def test_a_model_that_prefers_other_scripts_is_kept_to_french_unless_any_may_be_said(bench: Bench) -> None:
    """Tokens that may not begin a French text score 9, all others 0."""
    forbidden = bench.forbidden(b"").clone()
    forbidden[textless_ids(bench)] = False
    model, wild = tiny_model(vocab_size=bench.vocabulary), Sampling(24, 24, temperature=2, top_k=50, top_p=1)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[forbidden] = 9 / 64
    model.model.norm.register_forward_hook(lambda _, __, output: torch.ones_like(output))
    with closing(Engine(model, bench.tokenizer, slots=4, context=256)) as engine:
        for french in (True, False):
            asked = [engine.generate([5, 6], replace(wild, french=french), seed) for seed in range(4)]
            text = "".join("".join(generation) for generation in asked)
            assert all(bench.pieces[token] for one in asked for token in one.tokens)
            assert FRENCH.issuperset(text) == french
