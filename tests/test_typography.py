"""Apostrophes and non-breaking spaces in every French text that pupils or teachers read."""

import ast
import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from snb.settings import ROOT

RULE = "U+202F stands before ; ! ?, and U+00A0 before : and a unit and inside « »; an apostrophe is ’"
FOLDERS = (
    "snb/philosophers",
    "deploy/space",
    "client/src",
    "client/examples",
    "tools/preparing",
    "tools/serving",
)
KINDS = (".py", ".js", ".mjs", ".html", ".json", ".txt")
FILES = [file for name in FOLDERS for file in (ROOT / name).rglob("*") if file.suffix in KINDS]
FILES += [ROOT / "snb" / "prompt.py", ROOT / "predict.py", ROOT / "docs" / "repli.md"]
FRENCH = re.compile(r"[àâçèéêëîïôùûœ]|\w’\w|« |\w [;!?]$|0\s(?:s|min)$", re.IGNORECASE)
"""Matches French text; no English has any of these."""
CODE = re.compile(r"(^ *```.*?^ *```$|`[^`]*`|<[^>]*>|https?:\S+)", re.MULTILINE | re.DOTALL)
"""The parts of a Markdown page that are not prose."""


def typeset(text: str) -> str:
    """The text with the spaces and apostrophes of RULE."""
    text = re.sub(r"(?<!\s)\s?([;!?]+)(?!\w)", "\u202f\\1", text)
    text = re.sub(r"(?<!\s)[ \u00a0\u202f]?:(?=[\s*]|$)", "\u00a0:", text)
    text = re.sub(r"(?<=\d)\s(?=(?:Go|Mo|s|min|h|€|[$%])(?!\w))", "\u00a0", text)
    text = re.sub(r"(?<=\w)'(?=[aeéèêhiou])", "’", text)
    return re.sub(r"«\s?", "«\u00a0", re.sub(r"\s?»", "\u00a0»", text))


def sentences(file: Path) -> Iterator[str]:
    """The texts in a file: string literals of a program, text and attributes of HTML, all of a text file."""
    source = file.read_text(encoding="utf-8")
    if file.suffix in (".md", ".txt"):
        yield from CODE.split(source)[::2]
    elif file.suffix == ".py":
        tree = list(ast.walk(ast.parse(source)))
        docstrings = {id(node.value) for node in tree if isinstance(node, ast.Expr)}
        constants = (node for node in tree if isinstance(node, ast.Constant) and id(node) not in docstrings)
        yield from (node.value for node in constants if isinstance(node.value, str))
    else:
        program = re.sub(r"/\*[\s\S]*?\*/|//.*", "", source)
        program = re.sub(r"\\u(\w{4})", lambda escape: chr(int(escape[1], 16)), program)
        for plain, template in re.findall(r'"((?:[^"\\\n]|\\.)*)"|`([^`]*)`', program):
            yield plain or re.sub(r"\$\{[^}]*\}", "0", template)
        if file.suffix == ".html":
            yield from map(html.unescape, re.split(r"<[^>]*>", source))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_line_cannot_break_before_punctuation(file: Path) -> None:
    wrong = [text for text in sentences(file) if FRENCH.search(text) and typeset(text) != text]
    assert not wrong, RULE
