"""What the JavaScript client duplicates from the server is the same; its own tests are in client/test."""

import json
import re

from snb.parameters import Sampling, bounds
from snb.philosophers import names, persona
from snb.request import MAX_MESSAGE, MAX_PASSAGES, MAX_TEXT, MAX_TURNS, Request
from snb.settings import ROOT
from tools.serving.standin import NOTICE

SOURCE = ROOT / "client" / "src"


def test_the_personas_are_those_of_the_server() -> None:
    text = (SOURCE / "personas.js").read_text(encoding="utf-8")
    found = dict(re.findall(r"^  (\w+): (\".*\"),$", text, re.MULTILINE))
    assert {name: json.loads(value) for name, value in found.items()} == {
        name: persona(name) for name in names()
    }


def test_the_bounds_are_those_of_the_server() -> None:
    text = (SOURCE / "inputs.js").read_text(encoding="utf-8")
    assert f"MAX_MESSAGE = {MAX_MESSAGE};" in text
    assert f"MAX_PASSAGES = {MAX_PASSAGES};" in text
    assert f"MAX_TEXT = {MAX_TEXT};" in text
    assert f"MAX_TURNS = {MAX_TURNS};" in text
    numbers = re.findall(r'(?:whole|number)\("(\w+)", ([-\d.]+), ([-\d.]+)\)', text)
    options = {name: (float(low), float(high)) for name, low, high in numbers}
    assert options | {"deadline_seconds": (0, 1800)} == bounds(Sampling) | bounds(Request)


def test_the_example_says_in_french_that_the_stand_in_answered() -> None:
    text = (ROOT / "client" / "examples" / "netlify" / "public" / "page.js").read_text(encoding="utf-8")
    assert f'"{NOTICE}": "Modèle d’essai' in text


def test_both_pages_say_what_answers_and_who_helps() -> None:
    for page in (ROOT / "deploy/space/page", ROOT / "client/examples/netlify/public"):
        text = (page / "index.html").read_text(encoding="utf-8")
        for word in ("modèle de langage imite", "N’écris rien de", "3114", "119", "3018"):
            assert word in text, (page, word)
