"""The arithmetic part of the self-test: is the engine's rounding error about that of transformers?

No limit here was taken from one model or one card. The results of the engine, and those of transformers with
the same weights, are compared with fp32 (`snb.self_test.reference`); the engine's error may be up to three
times as large (FlashAttention's own tests allow twice). Each layer's attention and MLP is tested on the
inputs that it had, so depth neither hides a fault nor accumulates rounding.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, product
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from snb.engine.slots import SlotModel, Step
from snb.self_test import reference
from snb.self_test.finding import Finding

FACTOR = 3
"""How many times as far from fp32 as transformers the engine may be."""
ROWS, POSITIONS = 4, 64
"""Rows that are run as requests are, and how many next-token distributions are compared in all of them."""
PREFIX, CHUNK = 8, 8
"""Tokens of a row that are run as a saved prefix, then as a chunk of prefill; the rest are decode steps."""
STEPS = 8
"""Decode steps of one row alone; the more rows, the fewer, down to one."""
JUDGE = 1e-5
"""Relative rounding error of the fp32 reference itself: by how much the order of summation changes a sum."""
HALF = 0.5
"""Error, as a share of a vector's norm, that rounding explains in no precision."""
NO_TIE = math.log(2)
"""Nats below the likeliest token from which another is no near tie: it is half as likely."""
RIVALS = 20
"""How many of the likeliest tokens serve to estimate the rounding of the distances between scores."""

Figures = dict[str, float]
Passes = dict[tuple[int, str], tuple[Tensor, Tensor]]
"""By layer and `attention` or `mlp`: inputs and outputs `[n, tokens, hidden]`, on the CPU."""


@torch.inference_mode()
def judge(model: SlotModel, text: Sequence[int], step: Step) -> tuple[list[Finding], Figures]:
    """Teacher-forces a text through the engine's passes and compares the results with fp32.

    Some rows are run as requests are. Then one row alone and all rows at once take decode steps, since other
    kernels may compute them.

    Args:
        model: its rows are overwritten.
        text: ids, best of a natural text, whose scores are sharpest; repeated if short.
        step: a decode step, run without a graph; it may have `layers` of its own.
    """
    slots, device = model.cache.slots, model.model.device
    rows = min(ROWS, slots)
    ids = _rows(text, rows, PREFIX + CHUNK - 1 + -(-POSITIONS // rows), device)
    scores, passes = _forced(model, step, ids, CHUNK)
    findings, figures = _compare_scores(model, ids, scores)
    runs = [(passes, PREFIX + CHUNK)]
    for others in sorted({1, slots} - {rows}):
        ids = _rows(text, others, PREFIX + -(-STEPS // others), device)
        runs.append((_forced(model, step, ids, 0)[1], PREFIX))
    compared = [_compare_parts(model, *run) for run in runs]
    figures["worst_part"] = max(ratio for _, ratio in compared)
    return findings + [finding for part, _ in compared for finding in part], figures


def _rows(text: Sequence[int], rows: int, tokens: int, device: torch.device) -> Tensor:
    """Int64 `[rows, tokens]`: the beginning of the text in every row, then a different part of it in each."""
    needed = PREFIX + rows * (tokens - PREFIX)
    endless = torch.tensor(text, device=device).repeat(-(-needed // len(text)))[:needed]
    parts = endless[PREFIX:].view(rows, -1)
    return torch.cat([endless[:PREFIX].expand(rows, -1), parts], dim=1)


def _forced(model: SlotModel, step: Step, ids: Tensor, chunk: int) -> tuple[Tensor, Passes]:
    """Scores of each row's last positions, fp32 `[n, positions, vocabulary]`, and the layers' passes."""
    rows, cache = list(range(len(ids))), model.cache
    prefix, own = ids[0, :PREFIX].tolist(), ids[:, PREFIX : PREFIX + chunk].tolist()
    scores = []
    with _recorded(model.layers, getattr(step, "layers", ())) as passes:
        model.prefill([0], [prefix], [0])
        saved = cache.save(0, prefix)
        for row in rows:
            cache.start(row, saved)
        if chunk:
            scores.append(model.prefill(rows, own, [PREFIX] * len(rows)))
        columns = range(PREFIX + chunk, ids.shape[1])
        scores += [model.decode(ids[:, column].tolist(), [column] * len(rows), step) for column in columns]
    for row in rows:
        cache.start(row, None)
    return torch.stack(scores, dim=1), {part: _joined(calls) for part, calls in passes.items()}


@contextmanager
def _recorded(*models: Sequence[Any]) -> Iterator[dict[tuple[int, str], list[tuple[Tensor, Tensor]]]]:
    """Keeps inputs and outputs of every layer's attention and MLP, on the CPU to spare a full GPU.

    Args:
        models: the layers of prefill, and those of a step that has its own.
    """
    calls: dict[tuple[int, str], list[tuple[Tensor, Tensor]]] = defaultdict(list)

    def recorder(part: tuple[int, str], run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def keep(states: Tensor, *given: Any) -> Tensor:
            result = run(states, *given)
            calls[part].append((states.cpu(), result.cpu()))
            return result

        return keep

    with ExitStack() as stack:
        layers = chain.from_iterable(map(enumerate, models))
        for (number, layer), name in product(layers, ("attention", "mlp")):
            run = getattr(layer, name)
            setattr(layer, name, recorder((number, name), run))
            stack.callback(setattr, layer, name, run)
        yield calls


def _joined(calls: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Concatenates passes `[n, tokens, hidden]`; the first is of the prefix, which all rows share."""
    rows = len(calls[-1][0])
    given, results = zip(*calls, strict=True)
    shared = given[0].expand(rows, -1, -1), results[0].expand(rows, -1, -1)
    return torch.cat([shared[0], *given[1:]], dim=1), torch.cat([shared[1], *results[1:]], dim=1)


def _compare_parts(model: SlotModel, passes: Passes, read: int) -> tuple[list[Finding], float]:
    """Compares every attention and MLP with fp32 on its own inputs, and transformers likewise.

    Args:
        model: the model whose layers they are.
        passes: inputs and outputs of its attentions and MLPs.
        read: tokens of each row before the first decode step.

    Returns:
        The findings, and the largest error as a multiple of the allowed one.
    """
    eps, over, wrong = torch.finfo(model.model.dtype).eps, {}, {}
    for (number, name), (states, output) in passes.items():
        truth, plain = _both(model, number, name, states.to(model.model.device))
        own = _distances(output.to(truth.device), truth)
        allowed = FACTOR * _distances(plain, truth).max() + 2 * eps + JUDGE
        over[f"{name} of layer {number}"] = (own.max() / allowed.clamp(max=HALF)).item()
        wrong[f"{name} of layer {number}"] = own[:, read:].mean().item()
    rows = f"{len(own)} rows at once" if len(own) > 1 else "one row alone"
    worst, ratio = max(over.items(), key=lambda item: item[1])
    findings = []
    if faults := [part for part, distance in wrong.items() if not distance <= HALF]:
        findings.append(
            Finding("fault", f"{rows}: {faults[0]} is not what fp32 gives, nor {len(faults) - 1} others")
        )
    elif ratio > 1:
        number = sum(one > 1 for one in over.values())
        text = f"{rows}: {worst} is {ratio:.2g} times further from fp32 than rounding explains"
        text += f", and {number} of {len(over)} parts are"
        findings.append(Finding("doubt", text))
    return findings, ratio


def _both(model: SlotModel, number: int, name: str, states: Tensor) -> tuple[Tensor, Tensor]:
    """The output of a part of a layer in fp32, and by transformers, each `[n, tokens, hidden]`."""
    layer = model.model.model.layers[number]
    if name == "mlp":
        return reference.mlp(layer.mlp, states.float()), layer.mlp(states)
    angles, exact = reference.rotary(model.model, states), reference.rotary(model.model, states.float())
    plain, _ = layer.self_attn(hidden_states=states, position_embeddings=angles, attention_mask=None)
    return reference.attention(layer.self_attn, states.float(), exact), plain


def _distances(output: Tensor, truth: Tensor) -> Tensor:
    """The error of each position's vector, as a share of its norm, `[n, tokens]`."""
    distances: Tensor = (output.float() - truth).norm(dim=-1) / truth.norm(dim=-1).clamp_min(1e-30)
    return distances


def _compare_scores(model: SlotModel, ids: Tensor, scores: Tensor) -> tuple[list[Finding], Figures]:
    """Compares the engine's distributions and likeliest tokens with fp32, and transformers' likewise."""
    start = ids.shape[1] - scores.shape[1]
    truth = reference.scores(model.model, ids, start)
    plain = model.model(ids, use_cache=False).logits[:, start:].float()
    own, usual = (divergence(one, truth).mean().item() for one in (scores, plain))
    figures = {"positions": truth[..., 0].numel(), "nats": own, "nats_of_transformers": usual}
    if not scores.isfinite().all():
        return [Finding("fault", "scores are not finite")], figures
    findings = []
    best, rivals = truth.argmax(-1, keepdim=True), truth.topk(min(RIVALS, truth.shape[-1])).indices
    unit = (_margins(plain, best, rivals) - _margins(truth, best, rivals)).abs().max().item()
    gaps = _margins(truth, best, scores.argmax(-1, keepdim=True))
    if wrong := int((gaps > max(FACTOR * unit, NO_TIE)).sum()):
        text = f"{wrong} tokens are under the likeliest by up to {gaps.max().item():.2g} nats"
        findings.append(Finding("fault", f"{text}, where rounding explains {unit:.2g}"))
    if own > FACTOR * usual + 1e-4:
        text = f"the engine is {own:.2g} nats from fp32, transformers {usual:.2g}"
        findings.append(Finding("doubt", text))
    return findings, figures


def _margins(scores: Tensor, best: Tensor, others: Tensor) -> Tensor:
    """By how much the scores of some tokens lie below that of the best."""
    margins: Tensor = scores.gather(-1, best) - scores.gather(-1, others)
    return margins


def divergence(scores: Tensor, expected: Tensor) -> Tensor:
    """Kullback-Leibler divergence D(expected ‖ scores) of the distributions of two arrays of scores, in nats.

    Args:
        scores: fp32 `[…, vocabulary]`.
        expected: likewise.

    Returns:
        One value for each pair of distributions, `[…]`.
    """
    logarithms = scores.log_softmax(-1), expected.log_softmax(-1)
    each: Tensor = kl_div(*logarithms, log_target=True, reduction="none")
    return each.sum(-1)
