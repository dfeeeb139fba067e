"""How far a model's next-token scores are from another's, or its own in another precision, on French texts.

Each text of quality-set.json stands where an answer stands, after its philosopher's persona and a question,
and every token of it is scored given the ones before (teacher forcing).
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
"""Figures of two sets cannot be compared, so they carry this."""
TOKENS = 64
"""Of each text; the scores of all of them in fp32 are 0.5 GB with Qwen's vocabulary."""
Scored = list[tuple[Tensor, list[int]]]
"""The scores from which each token of an answer would be taken, fp32 `[tokens, vocabulary]`, and its ids."""


class Comparison(NamedTuple):
    """Divergences are of the second model from the first, Kullback-Leibler in nats."""

    tokens: int  # that were scored
    losses: tuple[float, float]  # mean surprise of both at the texts' own tokens, in nats
    mean_divergence: float
    worst_divergence: float
    same_choice: float  # share of tokens at which both find the same token likeliest


def compare(reference: str, other: str, settings: Settings) -> Comparison:
    """Holds a model against another; one after the other is in memory.

    Args:
        reference: a precision of base and adapter, a folder of prepared weights, or another folder or
            repository, as is `other`.
        settings: of both.

    Raises:
        SNBError: a folder or repository is absent or damaged, or a model does not fit this machine.
    """
    loaders = [loader(name, replace(settings, slots=1)) for name in (reference, other)]
    return comparison(*(scored(load, settings.context) for load in loaders))


def loader(name: str, settings: Settings) -> Callable[[], Loaded]:
    """Loads what is named, and is there: both are known to be before minutes pass with the first."""
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
    """The scores of all texts; gives the model's memory back."""
    loaded = load()
    with out_of_memory_named("scoring the texts"):
        rows = [(scores(loaded, prompt, answer), answer) for prompt, answer in texts(loaded, context)]
    del loaded
    gc.collect()
    torch.cuda.empty_cache()
    return rows


def texts(loaded: Loaded, context: int) -> Iterator[tuple[list[int], list[int]]]:
    """Prompts, and the ids of the texts that follow them."""
    chatml = ChatML(loaded.tokenizer)
    for text in TEXTS:
        request = Request(user_message=text["question"])
        prompt = chatml.prompt(persona(text["philosopher"]), request, context - TOKENS)
        yield prompt.ids, loaded.tokenizer.encode(text["answer"], add_special_tokens=False).ids[:TOKENS]


@torch.inference_mode()
def scores(loaded: Loaded, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """Of one answer, see `Scored`."""
    ids = torch.tensor([[*prompt, *answer[:-1]]], device=loaded.model.device)
    logits: Tensor = loaded.model(ids, logits_to_keep=len(answer), use_cache=False).logits
    return logits[0].float().cpu()


def comparison(first: Scored, second: Scored) -> Comparison:
    """The figures of two models' scores of the same texts."""
    ids = torch.tensor([token for _, answer in second for token in answer])
    one, other = (torch.cat([scores for scores, _ in rows]) for rows in (first, second))
    losses = cross_entropy(one, ids).item(), cross_entropy(other, ids).item()
    nats = torch.stack([divergence(*pair) for pair in zip(other, one, strict=True)])
    same = (one.argmax(-1) == other.argmax(-1)).float().mean().item()
    return Comparison(len(ids), losses, nats.mean().item(), nats.max().item(), same)
