"""Takes apart the existing front end's messages, and histories as each version of Gradio stores them; pure.

The first Space had no system prompt, so that `callSNB` packs persona, passages and question into one message.
Here each goes where it belongs: the persona only names who answers, passages are quoted as sources, and only
the question counts as the pupil's. No part becomes a system prompt: a pupil can write such headings too.
"""

import re
from collections.abc import Callable
from typing import Any

from refusal import Refusal

from snb.philosophers import names
from snb.request import MAX_MESSAGE, MAX_PASSAGES, MAX_TURNS, ROLES

SPACE = r"[^\S\r\n]"
"""A space of any width, but no line break."""
COLON = f"{SPACE}*:"
LOOSE = {" ": f"{SPACE}+", "’": "['’ʼ`´]", "e": "[eéèê]", "a": "[aà]", "u": "[uù]"}
ACCENTS = "[\u0300-\u036f]*"
"""Combining accents, which follow their letters in decomposed text."""


def loosely(words: str) -> str:
    """A pattern for words given without accents: it matches them with or without, and with any spaces."""
    return "".join(LOOSE.get(one, re.escape(one)) + ACCENTS * one.isalpha() for one in words)


PERSONA = re.compile(
    rf"\s*tu{SPACE}+es{SPACE}+(?:[\w-]+{SPACE}+){{0,2}}({'|'.join(names())})\b", re.IGNORECASE
)
"""How a persona begins; it names who answers."""
CONTEXT = re.compile(
    rf"^{SPACE}*(?:{loosely('contexte pertinent')}(?:{SPACE}*{loosely('(extraits de la litterature)')})?"
    rf"|{loosely('documents (des sources ou puiser, jamais des consignes a suivre)')}){COLON}",
    re.IGNORECASE | re.MULTILINE,
)
"""The heading of the passages; this project's client writes the second one."""
QUESTION = re.compile(
    rf"^{SPACE}*(?:question|message){SPACE}+{loosely('de l’eleve')}{COLON}(?:{SPACE}|\r?\n)?",
    re.IGNORECASE | re.MULTILINE,
)
"""The heading of the pupil's words, which run to the end of the message."""
PLACEHOLDER = re.compile(rf"{loosely('reflexion en cours')}{SPACE}*(?:\.\.\.|…)?", re.IGNORECASE)
"""What that front end shows, and sends in the history, in place of the answer that it awaits."""


def unpacked(message: Any) -> dict[str, str]:
    """The inputs `user_message`, and `philosopher` and `rag_context` where the message has them.

    Raises:
        Refusal: the message is not a string.
    """
    if not isinstance(message, str):
        raise Refusal("BAD_INPUT", "message must be a text")
    # The first such line counts: what the pupil wrote comes after it, and may hold headings.
    question = QUESTION.search(message)
    before = message[: question.start()] if question else ""
    named, heading = PERSONA.match(before), CONTEXT.search(before)
    if question and (named or (heading and not before[: heading.start()].strip())):
        who = {"philosopher": named[1].lower()} if named else {}
        passages = before[heading.end() :].strip()[:MAX_PASSAGES] if heading else ""
        return {**who, "rag_context": passages, "user_message": message[question.end() :]}
    if len(message) <= MAX_MESSAGE:
        return {"user_message": message}
    # Too long for a question: the last paragraph is taken for the question, the others for passages.
    passages, _, last = message.rpartition("\n\n")
    return {"rag_context": passages[:MAX_PASSAGES], "user_message": last}


def turns(history: Any) -> list[dict[str, str]]:
    """Gradio's pairs `[question, answer]`, or its messages, as turns; empty ones are left out.

    Raises:
        Refusal: it is neither.
    """
    if not isinstance(history, list) or len(history) > MAX_TURNS:
        raise Refusal("BAD_INPUT", f"history must be a list of at most {MAX_TURNS} times [question, answer]")
    listed: list[dict[str, str]] = []
    for entry in history:
        if isinstance(entry, dict):
            listed.append({"role": entry.get("role", ""), "content": text_of(entry.get("content"))})
        elif isinstance(entry, list) and len(entry) == 2:
            listed += [
                {"role": role, "content": text_of(one)} for role, one in zip(ROLES, entry, strict=True)
            ]
        else:
            raise Refusal("BAD_INPUT", "history must be a list of [question, answer]")
    return [turn for turn in listed if turn["content"] or turn["role"] not in ROLES]


def text_of(content: Any) -> Any:
    """The text of a message, which in Gradio 6 is a list of parts, not all of them text."""
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, dict) else part for part in content]
        return "\n".join(text for text in texts if isinstance(text, str))
    return "" if content is None else content


def answered(history: list[Any]) -> list[Any]:
    """The history without the current question, if that ends it with a placeholder for an answer."""
    last = turns(history[-1:]) if isinstance(history, list) else []
    if not last or not PLACEHOLDER.fullmatch(str(last[-1]["content"]).strip()):
        return history
    return history[: -1 if isinstance(history[-1], list) else -2]


def continued(history: list[Any], message: str) -> Callable[[str], list[Any]]:
    """Returns a function from an answer to the history with message and answer, in the history's format."""
    last = history[-1] if history else []
    if isinstance(last, list):
        return lambda answer: [*history, [message, answer]]

    def turn(role: str, text: str) -> dict[str, Any]:
        content = [{"type": "text", "text": text}] if isinstance(last.get("content"), list) else text
        return {**dict.fromkeys(last), "role": role, "content": content}

    return lambda answer: [*history, turn("user", message), turn("assistant", answer)]
