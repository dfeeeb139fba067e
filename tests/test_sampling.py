"""Sampling: the right distribution, and the same draw whatever else is in the batch."""

import subprocess
import sys

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from snb.engine.sampling import Draw, choose
from snb.parameters import Sampling
from snb.settings import ROOT

SCORES = torch.randn(50, generator=torch.Generator().manual_seed(1)) * 2
SETTINGS = [
    Sampling(temperature=1.0, top_k=0, top_p=1.0),
    Sampling(temperature=0.5, top_k=0, top_p=1.0),
    Sampling(temperature=1.0, top_k=7, top_p=1.0),
    Sampling(temperature=1.0, top_k=0, top_p=0.6),
    Sampling(temperature=1.5, top_k=20, top_p=0.8),
]


def expected(sampling: Sampling) -> torch.Tensor:
    """The probabilities by transformers' own processors, in its order."""
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
    draws = [Draw(sampling, i, 3) if varying == "seed" else Draw(sampling, 5, i) for i in range(number)]
    tokens = torch.tensor(choose(SCORES.expand(number, -1), draws))
    seen, wanted = torch.bincount(tokens, minlength=50).double(), expected(sampling).double() * number
    assert seen[wanted == 0].sum() == 0
    often = wanted >= 5
    chi_squared = float(((seen - wanted)[often] ** 2 / wanted[often]).sum())
    freedom = int(often.sum()) - 1
    # Five standard deviations of chi-squared: one false alarm in millions, and the draws are fixed anyway.
    assert chi_squared < freedom + 5 * (2 * freedom) ** 0.5


def test_sampling_knows_nothing_of_personas() -> None:
    """A process of its own, which imports torch."""
    code = "import sys, snb.engine.sampling; sys.exit('snb.philosophers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=0), Sampling(temperature=2, top_p=0), Sampling(temperature=2, top_k=1)]
)
def test_no_temperature_top_p_zero_and_top_k_one_leave_the_likeliest(sampling: Sampling) -> None:
    tokens = choose(SCORES.expand(50, -1), [Draw(sampling, seed, 0) for seed in range(50)])
    assert set(tokens) == {int(SCORES.argmax())}


def test_a_row_draws_the_same_alone_and_among_others() -> None:
    rows = torch.randn(16, 50, generator=torch.Generator().manual_seed(2)) * 3
    draws = [Draw(SETTINGS[row % 5], seed=row * 7, position=row) for row in range(16)]
    alone = [choose(rows[row : row + 1], [draws[row]])[0] for row in range(16)]
    assert choose(rows, draws) == alone
    assert choose(rows.flip(0), draws[::-1]) == alone[::-1]


def test_zero_and_the_largest_seed_are_seeds() -> None:
    drawn = set()
    for seed in (0, 1, 2**32, 2**63 - 1):
        draws = [Draw(SETTINGS[0], seed, position) for position in range(30)]
        tokens = choose(SCORES.expand(30, -1), draws)
        assert choose(SCORES.expand(30, -1), draws) == tokens
        drawn.add(tuple(tokens))
    assert len(drawn) == 4
