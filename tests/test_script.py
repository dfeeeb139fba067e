"""No token can lead an answer out of the scripts of French, in whole characters or byte by byte."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_model, tiny_tokenizer

from snb.engine import Engine
from snb.request import Sampling
from snb.script import ALLOWED, Script, fits, piece

TOKENIZER = tiny_tokenizer().backend_tokenizer
SCRIPT = Script(TOKENIZER, 391, torch.device("cpu"))
FRENCH = "« L’œil, ça ? » — Ô Dieu : être… conatus, αἰτία, λόγος, ὕβρις, ½ ≠ 3 → €, ﬁn, É, ÿ, ñ\n\t"
FOREIGN = "你好 これは カナ 한국어 привет שלום سلام हिन्दी ไทย 🙂 。，（"


def walk(text: str) -> bool:
    """Whether every token of a text is allowed where it stands."""
    pending = b""
    for token in TOKENIZER.encode(text, add_special_tokens=False).ids:
        if SCRIPT.forbidden(pending)[token]:
            return False
        pending = SCRIPT.pending(pending, token)
    return pending == b""


def test_french_with_greek_and_latin_can_be_said() -> None:
    assert walk(FRENCH)


def test_no_character_of_another_script_can() -> None:
    assert not [character for character in FOREIGN if character != " " and walk(character)]


@given(st.characters(exclude_categories=["Cs"]))
def test_a_character_can_be_said_if_and_only_if_it_is_allowed(character: str) -> None:
    allowed = any(low <= ord(character) <= high for low, high in ALLOWED)
    normal = TOKENIZER.normalizer.normalize_str(character)
    if normal == character:
        assert walk(character) == allowed


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.integers(0, 3))
def test_the_beginning_of_what_fits_fits(text: str, cut: int) -> None:
    data = text.encode()
    if fits(data):
        assert all(fits(data[:end]) for end in range(len(data) + 1))


def test_a_part_in_the_middle_of_a_character_cannot_begin_one() -> None:
    parts = [token for token in range(391) if piece(TOKENIZER, token)[:1] == b"\x9c"]
    assert parts
    assert SCRIPT.forbidden(b"")[parts].all()
    assert not SCRIPT.forbidden("œ".encode()[:1])[parts].all()


def test_the_end_tokens_may_be_chosen_and_never_inside_a_character() -> None:
    assert not SCRIPT.forbidden(b"")[[0, 2]].any()
    assert SCRIPT.forbidden("é".encode()[:1])[[0, 2]].all()


def test_a_random_model_that_would_say_anything_stays_within_the_script() -> None:
    engine = Engine(tiny_model(), TOKENIZER, slots=4, context=256)
    wild = {"max_tokens": 120, "min_tokens": 120, "temperature": 2, "top_k": 0, "top_p": 1}
    texts = {}
    for french in (True, False):
        asked = [engine.generate([5, 6], Sampling(**wild, french=french), seed=seed) for seed in range(8)]
        texts[french] = "".join("".join(generation) for generation in asked)
    engine.close()
    assert fits(texts[True].encode())
    assert "\ufffd" not in texts[True]
    assert "\ufffd" in texts[False]
