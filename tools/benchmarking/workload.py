"""What a benchmark asks: fixed texts and lengths, so that any two servers have the same to do.

Pupils of one run ask different questions, each with passages of its own, as a class does: a server that keeps
what it has computed for earlier prompts can reuse the persona, and no more than a real class would let it.
"""

import itertools
import json
from pathlib import Path
from typing import Any

TEXTS = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
TOKENS = {"chat": 64, "rag": 150}
"""New tokens of an answer, no fewer and no more; `rag` gets three passages, 1,800 to 2,600 characters."""
SAMPLING = {"temperature": 0.7, "top_p": 0.8, "top_k": 20}
"""Fixed here, whatever the service's defaults become."""


def inputs(workload: str, number: int) -> dict[str, Any]:
    """What pupil `number` sends, under the names of predict.py."""
    # His number comes first, for there are fewer questions than pupils, and a whole prompt could be reused.
    question = f"Élève {number}. {TEXTS['questions'][number % len(TEXTS['questions'])]}"
    asked: dict[str, Any] = {"philosopher": "spinoza", "user_message": question, "seed": number, **SAMPLING}
    asked |= dict.fromkeys(("max_tokens", "min_tokens"), TOKENS[workload])
    return asked if workload == "chat" else {**asked, "rag_context": passages(number)}


def passages(number: int) -> str:
    """Three of the passages in an order that comes back after 336 pupils; neighbours begin differently."""
    orders = list(itertools.permutations(TEXTS["passages"], 3))
    return "\n\n".join(orders[number * 43 % len(orders)])
