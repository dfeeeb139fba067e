"""French stays French: tokens of scripts that have no place in a French answer are never chosen.

Qwen's answers in other languages slip into Chinese now and then. Latin letters with every accent, Greek,
digits, punctuation, symbols and arrows stay; all other scripts and emojis go. A token of a byte-level
vocabulary may hold part of a character only, so what is allowed next depends on the bytes still open.
"""

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers.convert_slow_tokenizer import bytes_to_unicode

ALLOWED = ((0x0000, 0x03FF), (0x1E00, 0x2BFF), (0xFB00, 0xFB06))
"""Code points: Latin, accents and Greek; more of both, punctuation and symbols; Latin ligatures."""
LOWEST = {2: 0x80, 3: 0x800, 4: 0x10000}
"""Lowest code point of a character of so many bytes."""
BYTES = {character: byte for byte, character in bytes_to_unicode().items()}


class Script:
    """Which tokens may follow, by the bytes of a character that the answer has left open."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, device: torch.device) -> None:
        self._pieces = [piece(tokenizer, token) for token in range(vocabulary)]
        start = torch.tensor([not fits(piece) for piece in self._pieces], device=device)
        self._parts = [t for t, piece in enumerate(self._pieces) if piece and 0x80 <= piece[0] <= 0xBF]
        self._forbidden: dict[bytes, Tensor] = {b"": start}

    def forbidden(self, pending: bytes) -> Tensor:
        """Bool `[vocabulary]`. With a character open, only tokens that go on with it are allowed."""
        if pending not in self._forbidden:
            mask = torch.ones_like(self._forbidden[b""])
            mask[[token for token in self._parts if fits(pending + self._pieces[token])]] = False
            self._forbidden[pending] = mask
        return self._forbidden[pending]

    def pending(self, pending: bytes, token: int) -> bytes:
        """The bytes that are open after one more token."""
        data = pending + self._pieces[token]
        return data[len(data) - tail(data) :]


def piece(tokenizer: Tokenizer, token: int) -> bytes:
    """The bytes of a token; none for special tokens, which have no text, and for unused ids."""
    text = tokenizer.id_to_token(token)
    if text is None or tokenizer.decode([token], skip_special_tokens=True) == "":
        return b""
    if not all(character in BYTES for character in text):
        return text.encode()
    return bytes(BYTES[character] for character in text)


def tail(data: bytes) -> int:
    """How many bytes at the end belong to a character that is not whole."""
    for back in range(1, min(4, len(data) + 1)):
        lead = data[-back]
        if lead >= 0xC0:
            return back if back < length(lead) else 0
        if lead < 0x80:
            return 0
    return 0


def length(lead: int) -> int:
    """Bytes of a UTF-8 character, from its first byte."""
    return 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def fits(data: bytes) -> bool:
    """Whether bytes that begin with a character hold allowed ones only, the last of them perhaps in part."""
    whole, part = data[: len(data) - tail(data)], data[len(data) - tail(data) :]
    try:
        text = whole.decode("utf-8")
    except UnicodeDecodeError:
        return False
    spans = [(ord(character), ord(character)) for character in text]
    if part:
        # A code point in more bytes than it needs is no UTF-8, so each length has its lowest.
        first = max(code_point(part, 0x80), LOWEST[length(part[0])])
        spans.append((first, code_point(part, 0xBF)))
    return all(any(max(low, first) <= min(high, last) for low, high in ALLOWED) for first, last in spans)


def code_point(part: bytes, filler: int) -> int:
    """The code point of a character whose missing bytes are all `filler`."""
    size = length(part[0])
    code = part[0] & (0x7F >> size)
    for byte in part[1:] + bytes([filler]) * (size - len(part)):
        code = code << 6 | byte & 0x3F
    return code
