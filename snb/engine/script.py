"""Which tokens may be drawn: only those with text, and in French only characters that French is written in.

Qwen's answers in other languages slip into Chinese now and then, and no philosopher writes emojis. A token of
a byte-level vocabulary may end within a character, so which tokens may follow depends on its bytes.
"""

import codecs
import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor

RANGES = (
    (0x0009, 0x000A),  # tab and line feed; no other control, for a model ends its lines with \n
    (0x0020, 0x007E),  # ASCII
    (0x00A0, 0x02E9),  # Latin with every accent, phonetics, superior ʳ and ˢ
    (0x02EC, 0x034E),  # after two signs of Bopomofo: combining accents
    (0x0350, 0x03E1),  # after the invisible grapheme joiner: more of them, and Greek up to the Coptic letters
    (0x03F0, 0x03FF),  # Greek symbols
    (0x1D2C, 0x1D6A),  # superior letters: 1ᵉʳ, Mᵐᵉ, nᵒ
    (0x1D9B, 0x1DBF),  # the rest of them, after a Cyrillic one
    (0x1E00, 0x1FFF),  # Latin with more accents, polytonic Greek
    (0x2000, 0x25FF),  # spaces, punctuation, currencies, fractions, arrows, mathematical signs, lines, shapes
    (0x266D, 0x266F),  # ♭ ♮ ♯, in two blocks of pictures, of which fonts draw most as emojis
    (0x2794, 0x27FF),  # arrows, mathematical signs; Braille follows
    (0x2900, 0x2BFF),  # more of both
    (0xFB00, 0xFB06),  # ligatures: ﬁ, ﬂ
)
EMOJIS = frozenset("⌚⌛⌨⏏⏩⏪⏫⏬⏭⏮⏯⏰⏱⏲⏳⏸⏹⏺Ⓜ▪▫▶◀◻◼◽◾➕➖➗➡➰➿⤴⤵⬅⬆⬇⬛⬜⭐⭕")
"""Emojis within the ranges from U+2300 on, by Unicode's emoji-data.txt; earlier ones are text: © ™ ‼ ↔."""
UNSEEN = ("Cf", "Cn", "Me", "Zl", "Zp")
"""Categories left out of every range: format characters (soft hyphen, joiners, direction marks), unassigned
code points, enclosing marks (keycaps), line and paragraph separators."""
FRENCH = frozenset(
    character
    for first, last in RANGES
    for character in map(chr, range(first, last + 1))
    if character not in EMOJIS and unicodedata.category(character) not in UNSEEN
)
BEGINNINGS = frozenset(
    character.encode()[:size] for character in FRENCH for size in range(len(character.encode()))
)
"""Bytes in which a part of French text may end: the first few of a character, or none."""


class Script:
    """Masks of the tokens that may not be drawn next.

    Args:
        pieces: the bytes of each token, empty for those without text.
        ends: tokens that end an answer, which may be drawn though they have no text.
        device: of the masks.

    Attributes:
        textless: int64, ids that are never drawn, in French or not.
    """

    def __init__(self, pieces: Sequence[bytes], ends: Sequence[int], device: torch.device) -> None:
        self._pieces = pieces
        self._inner = [token for token, piece in enumerate(pieces) if piece and 0x80 <= piece[0] <= 0xBF]
        textless = {token for token, piece in enumerate(pieces) if not piece} - set(ends)
        self.textless = torch.tensor(sorted(textless), dtype=torch.int64, device=device)
        start = torch.tensor([not piece or not fits(piece) for piece in pieces], device=device)
        start[ends] = False
        self._forbidden: dict[bytes, Tensor] = {b"": start}

    def forbidden(self, pending: bytes) -> Tensor:
        """Bool `[vocabulary]`, for French. Within a character only tokens that continue it are allowed.

        Args:
            pending: the bytes of that character so far, or none.
        """
        if pending not in self._forbidden:
            mask = torch.ones_like(self._forbidden[b""])
            mask[[token for token in self._inner if fits(pending + self._pieces[token])]] = False
            self._forbidden[pending] = mask
        return self._forbidden[pending]


def fits(data: bytes) -> bool:
    """Whether bytes hold French characters only, from the start of one on; the last may be incomplete."""
    try:
        text, size = codecs.utf_8_decode(data)
    except UnicodeDecodeError:
        return False
    return FRENCH.issuperset(text) and data[size:] in BEGINNINGS
