"""Token ids to text as they come: never half a character, nothing lost at the end."""

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class Detokenizer:
    """The text of one answer. Special tokens leave no text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._emitted = 0

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character is still missing bytes."""
        self._ids.append(token)
        piece = self._stream.step(self._tokenizer, token) or ""
        self._emitted += len(piece)
        return piece

    def flush(self) -> str:
        """What was held back, without a character whose other bytes will never come."""
        text: str = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        return text[self._emitted :].rstrip("\ufffd")
