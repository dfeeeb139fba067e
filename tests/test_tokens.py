"""What docs/measurements.md and predict.py say about tokens, measured with Qwen2.5's own tokenizer."""

import json

from transformers import PreTrainedTokenizerFast

from snb.card import PREFIX_TOKENS
from snb.philosophers import names, persona
from snb.prompt import ChatML
from snb.request import Request
from snb.settings import ROOT, SHORTEST_CONTEXT

MEASUREMENTS = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
CONTRACT = (ROOT / "predict.py").read_text(encoding="utf-8")


def test_a_persona_has_as_many_tokens_as_is_said_and_memory_counts(
    qwen_tokenizer: PreTrainedTokenizerFast,
) -> None:
    chatml = ChatML(qwen_tokenizer.backend_tokenizer)
    counts = [len(chatml.prefix(persona(name))) for name in names()]
    assert f"a persona has {min(counts)} to {max(counts)} tokens" in MEASUREMENTS
    assert sum(counts) <= PREFIX_TOKENS
    question = Request("La liberté est-elle une illusion ? " * 5)
    for name in names():  # raises where it does not fit
        chatml.prompt(persona(name), question, SHORTEST_CONTEXT - question.sampling.max_tokens)


def test_french_takes_as_many_tokens_a_word_as_is_said(qwen_tokenizer: PreTrainedTokenizerFast) -> None:
    """Over personas, answers and passages, with words separated by spaces."""
    quality = json.loads((ROOT / "tools" / "preparing" / "quality-set.json").read_text(encoding="utf-8"))
    workload = json.loads((ROOT / "tools" / "benchmarking" / "workload.json").read_text(encoding="utf-8"))
    prose = [*map(persona, names()), *(one["answer"] for one in quality), *workload["passages"]]
    rate = sum(map(len, map(qwen_tokenizer.encode, prose))) / sum(len(text.split()) for text in prose)
    assert f"and French about {rate:.1f} a word" in MEASUREMENTS
    words = round(256 / rate, -1)
    assert f"French takes about {rate:.1f} tokens a word. 256 is about {words:.0f} words." in CONTRACT
