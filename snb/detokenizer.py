"""Token ids to text as they come: never half a character."""

import codecs
from collections.abc import Sequence

from tokenizers import Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

BYTES = {character: byte for byte, character in bytes_to_unicode().items()}
"""A byte-level vocabulary writes each byte as one of 256 visible characters."""


def pieces(tokenizer: Tokenizer, vocabulary: int) -> list[bytes]:
    """The bytes of each id below `vocabulary`.

    Added tokens are markup and have none (<|im_end|>, <tool_call>), nor have ids without a token, with which
    embeddings are padded: Qwen2.5 has 151,665 tokens and a vocabulary of 152,064.
    """
    added = tokenizer.get_added_tokens_decoder()
    result = [b""] * vocabulary
    for text, token in tokenizer.get_vocab(with_added_tokens=False).items():
        if token < vocabulary and token not in added:
            result[token] = bytes(map(BYTES.__getitem__, text))
    return result


class Detokenizer:
    """The text of one answer. Bytes that are no UTF-8 become U+FFFD, as in the tokenizer's own decoder."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character is still missing bytes."""
        return self._decoder.decode(self._pieces[token])

    @property
    def pending(self) -> bytes:
        """Bytes of a character that is not whole yet; at the end of an answer they are dropped."""
        return self._decoder.getstate()[0]
