"""How far a model's next-token scores are from another's, or its own in another precision, on French texts.

Each text of quality-set.json takes the place of an answer, after its philosopher's persona and a question,
and each of its first TOKENS tokens is scored given the ones before (teacher forcing).
"""

import gc
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from snb.diagnosis import out_of_memory_named
from snb.philosophers import persona
from snb.prompt import ChatML
from snb.request import Request
from snb.self_test.rounding import divergence
from snb.settings import PRECISIONS, Settings
from snb.weights.checkpoint import CARD
from snb.weights.fetch import ensure_base
from snb.weights.loader import Loaded, load, load_prepared
from snb.weights.lock import verify
from snb.weights.prepared import Card, Prepared

SET = Path(__file__).with_name("quality-set.json")
TEXTS = json.loads(SET.read_text(encoding="utf-8"))
NAME = f"{SET.stem} {hashlib.sha256(SET.read_bytes()).hexdigest()[:8]}"
"""Identifies the set of texts: figures on different sets cannot be compared."""
TOKENS = 64
"""Most tokens scored of each text; all scores in fp32 are 0.5 GB with Qwen's vocabulary."""
Scored = list[tuple[Tensor, list[int]]]
"""For each text: the scores for each of its tokens, fp32 `[tokens, vocabulary]`, and the tokens' ids."""


class Comparison(NamedTuple):
    """Divergences are Kullback-Leibler, of the second model from the first, in nats."""

    tokens: int  # scored
    losses: tuple[float, float]  # mean cross-entropy of both models on the texts' own tokens, in nats
    mean_divergence: float
    worst_divergence: float
    same_choice: float  # share of tokens at which both find the same token likeliest


def compare(reference: str, other: str, settings: Settings) -> Comparison:
    """Compares a model with another; only one is in memory at a time.

    Args:
        reference: like `other`, a precision of base and adapter, a folder of prepared weights, or another
            folder or repository.
        settings: those of both.

    Raises:
        SNBError: a folder or repository is absent or damaged, or a model does not fit this machine.
    """
    loaders = [loader(name, replace(settings, slots=1)) for name in (reference, other)]
    return comparison(*(scored(load, settings.context) for load in loaders))


def loader(name: str, settings: Settings) -> Callable[[], Loaded]:
    """A function that loads what is named. Folders and repositories are checked now, before a slow load."""
    if name in PRECISIONS:
        return partial(load, replace(settings, prepared="none", precision=name))
    folder = Path(name)
    if (folder / CARD).exists():
        verify(folder)
        return partial(load_prepared, Prepared(folder, Card.read(folder)), settings)
    alone = replace(settings, base_model=name, adapter="none", prepared="none")
    ensure_base(alone)
    return partial(load, alone)


def scored(load: Callable[[], Loaded], context: int) -> Scored:
    """Loads a model, scores all texts, and frees the model's memory."""
    loaded = load()
    with out_of_memory_named("scoring the texts"):
        rows = [(scores(loaded, prompt, answer), answer) for prompt, answer in texts(loaded, context)]
    del loaded
    gc.collect()
    torch.cuda.empty_cache()
    return rows


def texts(loaded: Loaded, context: int) -> Iterator[tuple[list[int], list[int]]]:
    """For each text, the ids of its prompt and its own first TOKENS ids."""
    chatml = ChatML(loaded.tokenizer)
    for text in TEXTS:
        request = Request(user_message=text["question"])
        prompt = chatml.prompt(persona(text["philosopher"]), request, context - TOKENS)
        yield prompt.ids, loaded.tokenizer.encode(text["answer"], add_special_tokens=False).ids[:TOKENS]


@torch.inference_mode()
def scores(loaded: Loaded, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """The scores for each token of `answer`, as in `Scored`."""
    ids = torch.tensor([[*prompt, *answer[:-1]]], device=loaded.model.device)
    logits: Tensor = loaded.model(ids, logits_to_keep=len(answer), use_cache=False).logits
    return logits[0].float().cpu()


def comparison(first: Scored, second: Scored) -> Comparison:
    """Compares two models by their scores of the same texts."""
    ids = torch.tensor([token for _, answer in second for token in answer])
    one, other = (torch.cat([scores for scores, _ in rows]) for rows in (first, second))
    losses = cross_entropy(one, ids).item(), cross_entropy(other, ids).item()
    nats = torch.stack([divergence(*pair) for pair in zip(other, one, strict=True)])
    same = (one.argmax(-1) == other.argmax(-1)).float().mean().item()
    return Comparison(len(ids), losses, nats.mean().item(), nats.max().item(), same)
