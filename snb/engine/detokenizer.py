"""Turns token ids into text as they are generated, never sending half a character."""

import codecs
from collections.abc import Sequence

from tokenizers import Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

BYTES = {character: byte for byte, character in bytes_to_unicode().items()}
"""The byte that each of 256 visible characters stands for in a byte-level vocabulary."""


def pieces(tokenizer: Tokenizer, vocabulary: int) -> list[bytes]:
    """The bytes of each id below `vocabulary`.

    Added tokens have none, since they are markup (<|im_end|>, <tool_call>), nor have the ids without a token
    that pad the embeddings: Qwen2.5 has 151,665 tokens and a vocabulary of 152,064.
    """
    added = tokenizer.get_added_tokens_decoder()
    result = [b""] * vocabulary
    for text, token in tokenizer.get_vocab(with_added_tokens=False).items():
        if token < vocabulary and token not in added:
            result[token] = bytes(map(BYTES.__getitem__, text))
    return result


class Detokenizer:
    """The text of one answer. Invalid UTF-8 becomes U+FFFD, as in the tokenizer's own decoder."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character still lacks bytes."""
        return self._decoder.decode(self._pieces[token])

    @property
    def pending(self) -> bytes:
        """Bytes of an incomplete character; at the end of an answer they are dropped."""
        return self._decoder.getstate()[0]
