"""How each philosopher answers a pupil who agrees, is lost, insults, is in distress …, checked by rules.

Each turn of pupil-turns.json follows an exchange of quality-set.json. Its answer must hold one of the words,
separated by `|`, of each entry of `with`, and none of `without`; if the turn `asks`, it must end with `?`.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from snb.philosophers import names, persona
from tools.command import plain
from tools.preparing.quality import TEXTS
from tools.table import table

TURNS: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("pupil-turns.json").read_text(encoding="utf-8")
)
RULES = ("length", "tu", "no marks", "no emoji", "quotations", "with", "without", "question")
SENTENCES = range(2, 5)
"""Numbers of sentences that every persona asks for."""
END = re.compile(r"[.!?…]+[\s»)]*(?=\s|$)")
MARKS = re.compile(r"^\s*(?:[-–—•]|\d+[.)]|#)|[*_`]", re.MULTILINE)
"""Lists, headings, bold, and gestures between asterisks."""
FAMILIAR = re.compile(r"\b(?:tu|te|toi|ton|ta|tes)\b|\bt’", re.IGNORECASE)
FORMAL = re.compile(r"\b(?:vous|votre|vos)\b", re.IGNORECASE)
QUOTED = re.compile(r"[«“\"]\s*(.*?)\s*[»”\"]")
SHOWN = 600
"""Characters shown of an answer that breaks a rule."""
Ask = Callable[[Mapping[str, Any]], str]


def verdicts(name: str, turn: Mapping[str, Any], answer: str) -> dict[str, bool]:
    """Whether an answer of the philosopher `name` keeps each rule that applies to its turn."""
    text, own = (" ".join(one.replace("'", "’").split()) for one in (answer, persona(name)))
    folded = text.casefold()
    wanted = [words.format(name=name).split("|") for words in turn.get("with", [])]
    rules = {
        "length": len(END.findall(QUOTED.sub("", text))) in SENTENCES,
        "tu": bool(FAMILIAR.search(text)) and not FORMAL.search(text),
        "no marks": not MARKS.search(answer),
        "no emoji": not any(unicodedata.category(character) == "So" for character in answer),
        "quotations": all(quotation in own for quotation in QUOTED.findall(text)),
        "with": all(any(word.casefold() in folded for word in words) for words in wanted),
        "without": not any(word.casefold() in folded for word in turn.get("without", [])),
    }
    return {**rules, "question": text.endswith("?")} if turn.get("asks") else rules


def report(ask: Ask) -> Iterator[str]:
    """For each philosopher a table, then the answers that break a rule; `ask` answers predict.py's inputs."""
    marks = {True: "ok", False: "NO", None: "–"}
    for name in names():
        before = next(text for text in TEXTS if text["philosopher"] == name)
        history = [
            {"role": "user", "content": before["question"]},
            {"role": "assistant", "content": before["answer"]},
        ]
        rows, broken = [], []
        for turn in TURNS:
            answer = ask(
                {"philosopher": name, "user_message": turn["message"], "history": history, "seed": 1}
            )
            kept = verdicts(name, turn, answer)
            rows.append([turn["turn"], *(marks[kept.get(rule)] for rule in RULES)])
            if not all(kept.values()):
                broken.append(f"{turn['turn']}: {plain(answer, SHOWN)}")
        yield "\n".join([table([name, *RULES], rows), "", *broken])
