"""Sampling has the right distribution, and a draw does not depend on the rest of the batch."""

import itertools
from collections.abc import Callable

import pytest
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from snb.engine import sampling
from snb.engine.sampling import FEW, MANY, Draw, Sampler, draw
from snb.engine.script import Script
from snb.parameters import Sampling

SCORES = torch.randn(50, generator=torch.Generator().manual_seed(1)) * 2
SETTINGS = [
    Sampling(temperature=1.0, top_k=0, top_p=1.0),
    Sampling(temperature=0.5, top_k=0, top_p=1.0),
    Sampling(temperature=1.0, top_k=7, top_p=1.0),
    Sampling(temperature=1.0, top_k=0, top_p=0.6),
    Sampling(temperature=1.5, top_k=20, top_p=0.8),
]


def choose(scores: torch.Tensor, asked: list[tuple[Sampling, int, int]], candidates: int = FEW) -> list[int]:
    """The token drawn for each row's (sampling, seed, position)."""
    rows = [(how.temperature, how.top_k, how.top_p, seed, position) for how, seed, position in asked]
    columns = Draw(*(torch.tensor(column)[:, None] for column in zip(*rows, strict=True)))
    return draw(scores, columns, candidates)[:, 0].tolist()


def expected(sampling: Sampling) -> torch.Tensor:
    """The probabilities by transformers' own processors, in the order that it applies them."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    scores: torch.Tensor = warpers(torch.tensor([[0]]), SCORES[None])
    return scores.softmax(-1)[0]


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
@pytest.mark.parametrize("varying", ["seed", "position"])
def test_draws_follow_the_distribution_of_transformers(sampling: Sampling, varying: str) -> None:
    number = 8_000
    draws = [(sampling, i, 3) if varying == "seed" else (sampling, 5, i) for i in range(number)]
    tokens = torch.tensor(choose(SCORES.expand(number, -1), draws))
    seen, wanted = torch.bincount(tokens, minlength=50).double(), expected(sampling).double() * number
    assert seen[wanted == 0].sum() == 0
    often = wanted >= 5
    chi_squared = float(((seen - wanted)[often] ** 2 / wanted[often]).sum())
    freedom = int(often.sum()) - 1
    # Five standard deviations of chi-squared: one false alarm in millions, and the draws are fixed anyway.
    assert chi_squared < freedom + 5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=0), Sampling(temperature=2, top_p=0), Sampling(temperature=2, top_k=1)]
)
def test_no_temperature_top_p_zero_and_top_k_one_leave_the_likeliest(sampling: Sampling) -> None:
    tokens = choose(SCORES.expand(50, -1), [(sampling, seed, 0) for seed in range(50)])
    assert set(tokens) == {int(SCORES.argmax())}


def test_zero_and_the_largest_seed_are_seeds() -> None:
    drawn = set()
    for seed in (0, 1, 2**32, 2**63 - 1):
        draws = [(SETTINGS[0], seed, position) for position in range(30)]
        tokens = choose(SCORES.expand(30, -1), draws)
        assert choose(SCORES.expand(30, -1), draws) == tokens
        drawn.add(tuple(tokens))
    assert len(drawn) == 4


@pytest.mark.parametrize("top_k", [0, FEW, FEW + 1, 1000])
def test_what_may_be_drawn_is_what_transformers_leaves_however_many_candidates_that_takes(top_k: int) -> None:
    """With coarse scores, as in bf16: transformers keeps all that tie for the last place."""
    rows = (torch.randn(4, 3000, generator=torch.Generator().manual_seed(3)) * 8).round() / 8
    left = (TopKLogitsWarper(top_k)(torch.tensor([[0]]), rows) if top_k else rows).isfinite()
    enough = FEW * 2 if 0 < top_k <= FEW else MANY * 2 if top_k else 0
    drawn = torch.zeros_like(left)
    flat = Sampling(temperature=2, top_k=top_k, top_p=1)
    for seed in range(200):
        tokens = choose(rows * 1e-6, [(flat, seed, row) for row in range(4)], enough)
        drawn[range(4), tokens] = True
    assert not (drawn & ~left).any()
    assert (drawn.sum(-1) > min(60, top_k or 150)).all()


def test_equals_are_drawn_by_no_seed_at_temperature_zero() -> None:
    rows = torch.zeros(20, 300).index_fill(1, torch.tensor([70, 80, 290]), 1)
    assert set(choose(rows, [(Sampling(temperature=0), seed, seed) for seed in range(20)])) == {70}


def test_scores_that_are_no_numbers_choose_no_token_and_the_row_can_still_be_computed_on() -> None:
    """The first and the last token are never drawn, whatever the scores."""
    sampler = Sampler(2, 64, Script([b"", *[b"e"] * 298, b""], [5], torch.device("cpu")))
    for row, temperature in enumerate((0, 1)):
        sampler.start(row, [5, 6], Sampling(temperature=temperature), seed=1)
    for spoilt in (slice(None), slice(7, 8)):
        scores = torch.zeros(2, 300)
        scores[:, spoilt] = torch.nan
        assert sampler.choose(scores, range(2)).tolist() == [-1, -1]
    assert sampler.ids.tolist() == [[0], [0]]


def test_a_row_that_needs_more_candidates_leaves_those_of_its_neighbours_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[tuple[int, int]] = []

    def counted(scores: torch.Tensor, how: Draw, candidates: int) -> torch.Tensor:
        drawn.append((len(scores), candidates))
        return draw(scores, how, candidates)

    monkeypatch.setattr(sampling, "draw", counted)
    script = Script([b"e"] * 2000, [0], torch.device("cpu"))
    sampler = Sampler(8, 64, script)
    for row in range(8):
        top_k = {3: 0, 5: 1000, 6: FEW}.get(row, 20)
        sampler.start(row, [5, 6], Sampling(top_k=top_k), seed=row)
    sampler.choose(torch.randn(8, 2000), range(8))
    assert sorted(drawn) == [(1, 0), (1, MANY), (8, FEW)]


def test_recorded_choices_are_those_of_every_row_alone_and_others_are_made_as_before() -> None:
    """Recording only runs them here: the test shows which rows each takes, and in whose state."""
    script = Script([b"e"] * 2000, [0], torch.device("cpu"))
    plain, recorded = samplers = [Sampler(8, 64, script) for _ in range(2)]
    calls: list[int] = []

    def record(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        return lambda: calls.append(1) or run()  # type: ignore[func-returns-value]

    recorded.record(record)
    for sampler, row in itertools.product(samplers, range(8)):
        top_k = 1000 if row == 6 else 20
        sampling = Sampling(top_k=top_k, presence_penalty=0.5, repetition_penalty=1.2)
        sampler.start(row, [5, 6], sampling, seed=row)
    for rows in ([0], range(4), range(6), [1, 3], range(8), range(5)):
        scores = torch.randn(len(rows), 2000)
        own, replayed = (sampler.choose(scores.clone(), rows) for sampler in samplers)
        assert torch.equal(own, replayed)
        assert torch.equal(plain.positions, recorded.positions)
    assert len(calls) == 4
    assert sorted(recorded.recorded) == list(range(1, 9))
