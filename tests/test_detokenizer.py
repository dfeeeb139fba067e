"""Detokenising piece by piece gives the whole text, and never half a character."""

from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer

from snb.detokenizer import Detokenizer

TOKENIZER = tiny_tokenizer()
BACKEND = TOKENIZER.backend_tokenizer


def pieces(ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(BACKEND)
    return [*(detokenizer.push(token) for token in ids), detokenizer.flush()]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_pieces_add_up_to_the_text(text: str) -> None:
    ids = BACKEND.encode(text, add_special_tokens=False).ids
    whole = BACKEND.decode(ids)
    assert "".join(pieces(ids)) == whole.rstrip("\ufffd")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), min_size=1), st.data())
def test_an_answer_cut_anywhere_loses_only_the_half_character(text: str, data: st.DataObject) -> None:
    ids = BACKEND.encode(text, add_special_tokens=False).ids
    cut = data.draw(st.integers(0, len(ids)))
    given_pieces = pieces(ids[:cut])
    assert not any("\ufffd" in piece for piece in given_pieces)
    assert BACKEND.decode(ids).startswith("".join(given_pieces))


@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=40))
def test_tokens_that_are_no_valid_utf_8_still_give_text(ids: list[int]) -> None:
    text = "".join(pieces(ids))
    text.encode("utf-8")
    assert text == BACKEND.decode(ids, skip_special_tokens=True).rstrip("\ufffd")


def test_a_character_of_several_tokens_comes_whole() -> None:
    ids = BACKEND.encode("🙂", add_special_tokens=False).ids
    assert len(ids) > 1
    assert [piece for piece in pieces(ids) if piece] == ["🙂"]


def test_special_tokens_leave_no_text() -> None:
    assert "".join(pieces(TOKENIZER.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]))) == ""
