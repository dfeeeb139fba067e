"""Answers end exactly before a stop string, wherever pieces break; runaway repetition is detected."""

import itertools
from typing import Literal
from unicodedata import normalize

from hypothesis import given
from hypothesis import strategies as st

from snb.engine.stops import REPEATS, SHORTEST_LOOP, StopStrings, loops

few = st.text("aéb", max_size=30)
FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
forms = st.sampled_from(FORMS)


def expected(text: str, stops: list[str]) -> str:
    """The text before the stop string that is complete first; of several, the one that begins first."""
    for end in range(len(text) + 1):
        if starts := [text[:end].rfind(stop) for stop in stops if text[:end].endswith(stop)]:
            return text[: min(starts)]
    return text


@given(few, st.lists(st.text("aéb", min_size=1, max_size=4), max_size=3), st.lists(st.integers(0, 30)))
def test_the_first_whole_stop_string_cuts_wherever_the_pieces_break(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    for edges in (sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)}), range(len(text) + 1)):
        stopper = StopStrings(stops)
        sent = [stopper.push(text[a:b]) for a, b in itertools.pairwise(edges)]
        assert "".join(sent) + stopper.flush() == expected(text, stops)
        assert stopper.hit == any(stop in text for stop in stops)


@given(st.text("béấ", max_size=30), st.lists(st.text("béấ", min_size=1, max_size=4), max_size=3), st.data())
def test_an_accent_is_the_same_however_it_is_typed(text: str, stops: list[str], data: st.DataObject) -> None:
    typed = "".join(normalize(data.draw(forms), character) for character in text)
    stopper = StopStrings([normalize(data.draw(forms), stop) for stop in stops])
    sent = "".join(map(stopper.push, typed)) + stopper.flush()
    assert normalize("NFC", sent) == expected(text, stops)


def test_nothing_is_held_back_but_what_may_still_become_a_stop_string() -> None:
    assert StopStrings([]).push("texte") == "texte"
    stopper = StopStrings(["\n\nÉlève :"])
    assert stopper.push("Oui.\n") == "Oui."
    assert stopper.push("\nÉl") == ""
    assert stopper.push("an vital") == "\n\nÉlan vital"
    assert stopper.push("\n\nÉlève : non") == ""
    assert stopper.hit
    assert stopper.push("et après") == stopper.flush() == ""


def test_a_phrase_over_and_over_is_a_loop_and_a_refrain_is_not() -> None:
    start = list(range(100, 150))
    assert loops(start + [7] * SHORTEST_LOOP)
    assert not loops(start + [7] * (SHORTEST_LOOP - 1))
    phrase = list(range(30))
    assert loops(start + phrase * REPEATS)
    assert not loops(start + phrase * (REPEATS - 1))
    assert not loops(start)
    assert not loops([])
