"""What a benchmark asks: fixed texts and lengths, so that any two servers have the same work.

Pupils of one run ask different questions, each with passages of its own, as a class does: a server that keeps
earlier prompts cached can reuse the persona, and no more than a real class would let it.
"""

import itertools
import json
from pathlib import Path
from typing import Any

TEXTS = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
TOKENS = {"chat": 64, "rag": 150}
"""Exact number of new tokens of an answer; `rag` adds three passages, 2,064 to 2,134 characters in all."""
SAMPLING = {"temperature": 0.7, "top_p": 0.8, "top_k": 20}
"""Fixed here, so that figures do not depend on the service's defaults."""


def inputs(workload: str, number: int) -> dict[str, Any]:
    """What pupil `number` sends, under the names of predict.py."""
    # The number comes first: there are fewer questions than pupils, and a whole prompt could be reused.
    question = f"Élève {number}. {TEXTS['questions'][number % len(TEXTS['questions'])]}"
    asked: dict[str, Any] = {"philosopher": "spinoza", "user_message": question, "seed": number, **SAMPLING}
    asked |= dict.fromkeys(("max_tokens", "min_tokens"), TOKENS[workload])
    return asked if workload == "chat" else {**asked, "rag_context": passages(number)}


def passages(number: int) -> str:
    """Three passages, in a choice and order that recurs after 336 pupils; neighbours' begin differently."""
    orders = list(itertools.permutations(TEXTS["passages"], 3))
    return "\n\n".join(orders[number * 43 % len(orders)])
