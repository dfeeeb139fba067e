"""Detokenising piece by piece gives the text of the tokenizer's decoder, and never half a character."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from snb.engine.detokenizer import Detokenizer, pieces

TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\ufffdœ🙂"))


class Bench:
    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer.backend_tokenizer
        self.pieces = pieces(self.tokenizer, len(tokenizer))
        special = self.tokenizer.get_added_tokens_decoder()
        self.markup = [token.content for token in special.values()]
        tokens = [token for token, piece in enumerate(self.pieces) if piece or special[token].special]
        self.wild = st.lists(st.sampled_from(tokens), max_size=40)

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids  # type: ignore[no-any-return]

    def texts(self, ids: list[int]) -> list[str]:
        """The pieces of text; asserts that they make what the tokenizer decodes, but for half a character."""
        detokenizer = Detokenizer(self.pieces)
        texts = [detokenizer.push(token) for token in ids]
        half = "\ufffd" if detokenizer.pending else ""
        assert "".join(texts) + half == self.tokenizer.decode(ids, skip_special_tokens=True)
        return texts


@pytest.fixture(scope="session")
def bench(each_tokenizer: PreTrainedTokenizerFast) -> Bench:
    return Bench(each_tokenizer)


@given(TEXTS)
def test_the_pieces_add_up_to_the_text_and_a_last_replacement_character_is_kept(
    bench: Bench, text: str
) -> None:
    assume(not any(mark in text for mark in bench.markup))  # Hypothesis also tries strings of the code
    for whole in (text, text + "\ufffd"):
        assert "".join(bench.texts(bench.ids(whole))) == bench.tokenizer.normalizer.normalize_str(whole)


@given(st.data())
def test_tokens_that_are_no_valid_utf_8_still_give_text(bench: Bench, data: st.DataObject) -> None:
    bench.texts(data.draw(bench.wild))


def test_added_tokens_and_ids_without_a_token_leave_no_text(each_tokenizer: PreTrainedTokenizerFast) -> None:
    size = len(each_tokenizer)
    spare = pieces(each_tokenizer.backend_tokenizer, size + 9)
    assert not any(spare[token] for token in [*each_tokenizer.added_tokens_decoder, *range(size, size + 9)])
    assert pieces(each_tokenizer.backend_tokenizer, size - 99) == spare[: size - 99]
