"""The exact part of the self-test: which columns a decode step reads, and which it writes. No tolerance.

Nothing here depends on what a model has learned or on how a card rounds, since the same numbers in the same
shapes give the same bits. Where they do not, the check reports that it is blind.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from snb.card import PREFILL_TOKENS
from snb.engine.sampling import Sampler
from snb.engine.shared import Prefix
from snb.engine.slots import SlotModel, Step
from snb.parameters import Sampling
from snb.self_test.finding import Finding

WIDTH = 512
"""Columns that are filled with made-up numbers."""
SENTINEL = 7.0
"""Value of the cells that must not be written to."""
PENALISED = Sampling(repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.3)

Pass = Callable[..., Tensor]
"""A `Step` or a `PrefillPass`."""


def replays(model: SlotModel, step: Step) -> Iterator[Finding]:
    """Checks that replayed graphs give the scores, and write the cells, that the recorded passes do."""
    recorded = getattr(step, "recorded", model.step)
    if step == recorded:
        return
    device, slots, context = model.model.device, model.cache.slots, model.cache.context
    for rows, columns in getattr(step, "sizes", [(slots, context)]):
        ids = torch.arange(5, 5 + rows, device=device)[:, None]
        positions = torch.arange(rows, device=device)[:, None].neg() % columns
        size = f"{rows} rows over {columns} columns"
        yield from _replayed(model, size, positions, recorded, step, (ids, positions, columns))
    prefill: Any = getattr(step, "prefill_pass", None)
    for rows, width, columns in getattr(prefill, "sizes", []):
        number, places = torch.arange(rows, device=device), torch.arange(width, device=device)
        positions = torch.where(places < columns, places, context).expand(rows, -1)
        given = number, positions % 300 + 5 + number[:, None], positions, number * 0, columns
        size = f"{rows} times {width} tokens over {columns} columns"
        yield from _replayed(model, size, positions, model.prefill_pass, prefill, given)


def _replayed(
    model: SlotModel, size: str, positions: Tensor, own: Pass, replay: Pass, given: Sequence[Any]
) -> Iterator[Finding]:
    """Compares scores, and the keys and values that were written to the first rows."""
    rows = torch.arange(len(positions), device=positions.device)[:, None]
    stores = model.cache.keys, model.cache.values
    first, replayed, again = (
        [run(*given).clone(), *(store[:, rows, :, positions].clone() for store in stores)]
        for run in (own, replay, own)
    )
    if not _same(first, again):
        yield Finding("blind", f"{size}: the same pass gives two results")
    elif not _same(first, replayed):
        yield Finding("fault", f"{size}: a replayed pass is not what was recorded")


@torch.inference_mode()
def choices(model: SlotModel, sampler: Sampler) -> Iterator[Finding]:
    """Checks that a replayed choice draws what is drawn eagerly, as the first token and after others."""
    device, shape = model.model.device, (model.cache.slots, model.model.config.vocab_size)
    scores = torch.randn(shape, generator=torch.Generator(device).manual_seed(0), device=device)
    for number in sampler.recorded:
        rows, drawn = range(number), []
        for choose in (sampler.choose_eagerly, sampler.choose):
            for row in rows:
                sampler.start(row, [5, 6], PENALISED, seed=row)
            drawn.append([choose(scores[:number].clone(), rows).clone() for _ in range(3)])
        yield from _unless(_same(*drawn), f"{number} rows: a replayed choice is not what was recorded")


@torch.inference_mode()
def reads(model: SlotModel, step: Step) -> Iterator[Finding]:
    """Checks that a row's scores depend on all columns up to its position, none beyond, and no neighbour."""
    filled = Filled(model, step)
    scores = filled.scores()
    if not scores.isfinite().all():
        yield Finding("fault", "the scores of a step are not finite")
    elif not torch.equal(scores, filled.scores()):
        yield Finding("blind", "the same step gives two results, so what it reads cannot be told")
    else:
        yield from _beyond(filled)
        yield from _lost(filled)
        yield from _neighbours(filled)


class Filled:
    """A few rows of random values, read at different positions by one decode step.

    Their keys are zero, so that attention weighs all columns alike and each matters as much as any other.
    """

    def __init__(self, model: SlotModel, step: Step) -> None:
        self._step, self._cache, self._device = step, model.cache, model.model.device
        self.width = min(WIDTH, model.cache.context)
        rows = min(3, model.cache.slots)
        self.positions = [self.width // 2, self.width - 1, 7][:rows]
        self.values = model.cache.values
        # On a CPU the rest of a row is untouched pages, which take no memory until they are written to.
        self.end = model.cache.context + 1 if self.values.is_cuda else self.width
        self._generator = torch.Generator(self._device).manual_seed(0)
        for row in range(rows):
            model.cache.start(row, None)
            self.refill(row)

    def refill(self, row: int, start: int = 0) -> None:
        """Puts other random values into a row, from column `start` on."""
        self._cache.keys[:, row, :, start : self.end] = 0
        self.values[:, row, :, start : self.end].normal_(generator=self._generator)

    def scores(self) -> Tensor:
        """Scores of one step, fp32 `[rows, vocabulary]`."""
        positions = torch.tensor(self.positions, device=self._device)[:, None]
        ids = torch.arange(5, 5 + len(positions), device=self._device)[:, None]
        return self._step(ids, positions, self.width).clone()


def _beyond(filled: Filled) -> Iterator[Finding]:
    before = filled.scores()
    for row, position in enumerate(filled.positions):
        filled.refill(row, position + 1)
    yield from _unless(
        torch.equal(filled.scores(), before), "columns beyond its position change a row's scores"
    )


def _lost(filled: Filled) -> Iterator[Finding]:
    """Columns that a step does not read, tried at both ends of a row and on both sides of column 64."""
    before, lost, tried = filled.scores(), [], 0
    for column in (0, 1, 63, 64, -2, -1):
        columns = [column % position for position in filled.positions]
        cells = [filled.values[:, row, :, one] for row, one in enumerate(columns)]
        kept = [cell.clone() for cell in cells]
        for cell, position in zip(cells, filled.positions, strict=True):
            cell += 30 * position**0.5
        unchanged = (filled.scores() == before).all(-1).tolist()
        for cell, value in zip(cells, kept, strict=True):
            cell.copy_(value)
        lost += [f"{one}" for one, same in zip(columns, unchanged, strict=True) if same]
        tried += len(columns)
    if len(lost) == tried:
        yield Finding("blind", "no column changes any score, so a lost one cannot be told")
    elif lost:
        yield Finding("fault", f"attention does not read columns {', '.join(lost)}")


def _neighbours(filled: Filled) -> Iterator[Finding]:
    rows, after = range(len(filled.positions)), filled.scores()
    for row in rows:
        for neighbour in set(rows) - {row}:
            filled.refill(neighbour)
        before, after = after, filled.scores()
        yield from _unless(torch.equal(after[row], before[row]), "a neighbour changes a row's scores")


@torch.inference_mode()
def writes(model: SlotModel, step: Step) -> Iterator[Finding]:
    """Checks that prefill and decode write the keys and values of layer 0 where they belong, nowhere else."""
    rows, idle, device = min(2, model.cache.slots), model.cache.context, model.model.device
    ids = [[5, 6, 7, 8, 9], [10, 11, 12]][:rows]
    padded = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 0, 0]][:rows], device=device)
    places = torch.tensor([[2, 3, 4, 5, 6], [0, 1, 2, idle, idle]][:rows], device=device)
    starts = places[:, 0].tolist()
    yield from _written(
        model, "prefill", padded, places, lambda: model.prefill(list(range(rows)), ids, starts)
    )
    newest, places = padded[:, :1], torch.tensor([[9], [6]][:rows], device=device)
    sizes = [size for size, _ in getattr(step, "sizes", [(rows, idle)]) if size >= rows]
    yield from _written(
        model, "decode", newest, places, lambda: step(newest, places, min(64, idle)), min(sizes)
    )


def _written(
    model: SlotModel, what: str, ids: Tensor, positions: Tensor, run: Callable[[], Tensor], computed: int = 0
) -> Iterator[Finding]:
    """Compares the first rows, and one more, with what layer 0's own modules compute in the same shape.

    Args:
        computed: how many rows `run` pads `ids` to, if it does.
    """
    stores = model.cache.keys[0], model.cache.values[0]
    rows = range(min(len(ids) + 1, model.cache.slots))
    for row in rows:
        model.cache.start(row, None)
        for store in stores:
            store[row] = SENTINEL
    run()
    more = (0, 0, 0, max(0, computed - len(ids)))
    shape = pad(ids, more), pad(positions, more, value=model.cache.context)
    expected = first_layer(model, *shape)
    if not _same(expected, first_layer(model, *shape)):
        yield Finding("blind", f"{what}: layer 0 gives two results")
        return
    for store, new in zip(stores, expected, strict=True):
        meant = torch.full_like(store[: len(rows)], SENTINEL)
        for row in range(len(ids)):
            meant[row][:, positions[row]] = new[row]
        right = torch.equal(store[: len(rows), :, :-1], meant[:, :, :-1])  # padding goes to the last column
        yield from _unless(right, f"{what}: layer 0 does not write what it should where it should")


@torch.inference_mode()
def prefixes(
    model: SlotModel, saved: Sequence[Prefix], prompt: Sequence[int], rows: Sequence[int]
) -> Iterator[Finding]:
    """Checks that each saved prefix is of its ids, and that rows hold the one that their prompt begins with.

    Args:
        model: the model whose cache holds the rows.
        saved: the engine's prefixes, longest first.
        prompt: ids of the prompt that the rows answered.
        rows: the rows that answered it.
    """
    for prefix in saved:
        ids = torch.tensor([prefix.ids], device=model.model.device)
        places = torch.arange(len(prefix.ids), device=ids.device)[None]
        # In the same chunks as its prefill, since another shape may round differently.
        starts = range(PREFILL_TOKENS, len(prefix.ids), PREFILL_TOKENS)
        chunks = zip(*(one.tensor_split(list(starts), dim=1) for one in (ids, places)), strict=True)
        parts = zip(*(first_layer(model, *chunk) for chunk in chunks), strict=True)
        right = _same((prefix.keys[0], prefix.values[0]), [torch.cat(part, dim=2)[0] for part in parts])
        yield from _unless(right, "a saved prefix is not of its own tokens")
    begun = [prefix for prefix in saved if tuple(prompt[: len(prefix.ids)]) == prefix.ids]
    for prefix in begun[:1]:
        for row in rows:
            own = (store[:, row, :, : len(prefix.ids)] for store in (model.cache.keys, model.cache.values))
            right = _same(list(own), (prefix.keys, prefix.values))
            yield from _unless(right, "a row does not hold the prefix that its prompt begins with")


@torch.inference_mode()
def first_layer(model: SlotModel, ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of layer 0, `[n, kv_heads, tokens, head_dim]`; both inputs are int64 `[n, tokens]`."""
    first = model.layers[0]
    states = first.normed(model.model.model.embed_tokens(ids))
    return first.attention.project(states, model.angles(positions))[1:]


def _same(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all(map(torch.equal, some, others))


def _unless(right: bool, text: str) -> Iterator[Finding]:
    if not right:
        yield Finding("fault", text)
