"""Which tokens may be drawn: only those with text, and in French only characters that French is written in.

Qwen's answers in other languages slip into Chinese now and then, and no philosopher writes emojis. A token of
a byte-level vocabulary may end within a character, so which tokens may follow depends on its bytes.
"""

import codecs
import unicodedata
from collections.abc import Sequence

import torch

RANGES = (
    (0x0009, 0x000A),  # tab and line feed; no other control, since a model ends its lines with \n
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


STATES = {pending: number for number, pending in enumerate(sorted(BEGINNINGS))}
"""States of an answer in French, by the bytes of its incomplete character; 0 where there is none."""
ANY = len(STATES)
"""The state of an answer in any script, which it never leaves."""
FORBIDDEN = 255


class Script:
    """Which tokens may be drawn next, and the state that each leads to: a table, so that a GPU can follow it.

    Args:
        pieces: the bytes of each token, empty for those without text.
        ends: tokens that end an answer, which may be drawn though they have no text.
        device: of the table.

    Attributes:
        after: uint8 `[states, vocabulary]`, the state after each token, or FORBIDDEN. Within a character only
            tokens that continue it are allowed.
        ends: int64, as given.
    """

    def __init__(self, pieces: Sequence[bytes], ends: Sequence[int], device: torch.device) -> None:
        after = torch.full((ANY + 1, len(pieces)), FORBIDDEN, dtype=torch.uint8)
        after[ANY] = torch.tensor([ANY if piece else FORBIDDEN for piece in pieces])
        inner = [token for token, piece in enumerate(pieces) if piece and 0x80 <= piece[0] <= 0xBF]
        for pending, state in STATES.items():
            tokens = inner if pending else [token for token, piece in enumerate(pieces) if piece]
            rest = {token: unfinished(pending + pieces[token]) for token in tokens}
            leads = {token: STATES[data] for token, data in rest.items() if data is not None}
            after[state, list(leads)] = torch.tensor(list(leads.values()), dtype=torch.uint8)
        after[0, ends], after[ANY, ends] = 0, ANY
        self.after = after.to(device)
        self.ends = torch.tensor(ends, dtype=torch.int64, device=device)


def unfinished(data: bytes) -> bytes | None:
    """The incomplete character at the end of bytes that hold French text; None if they hold anything else."""
    try:
        text, size = codecs.utf_8_decode(data)
    except UnicodeDecodeError:
        return None
    return data[size:] if FRENCH.issuperset(text) and data[size:] in BEGINNINGS else None
