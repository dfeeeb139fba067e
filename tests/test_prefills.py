"""Prompts processed in fixed shapes give the same as in their own, and write only their own cache cells."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from snb.engine.prefills import Prefills
from snb.engine.recording import doublings
from snb.engine.sampling import Sampler
from snb.engine.script import Script
from snb.engine.slots import SlotModel
from snb.parameters import Sampling
from tests.tiny import tiny_model

CONTEXT = 300
MODELS = [SlotModel(tiny_model(), slots=9, context=CONTEXT) for _ in range(2)]
OWN, PADDED = MODELS
FIXED = Prefills(PADDED, lambda run: run)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 80), st.integers(1, 200)), min_size=1, max_size=9), st.data())
def test_a_pass_in_a_fixed_shape_is_that_in_its_own(
    sizes: list[tuple[int, int]], data: st.DataObject
) -> None:
    rows = data.draw(st.permutations(range(9)))[: len(sizes)]
    ids = [[3 + (row + place) % 300 for place in range(tokens)] for row, (_, tokens) in enumerate(sizes)]
    starts = [start for start, _ in sizes]
    scores = [model.prefill(rows, ids, starts, read) for model, read in ((OWN, None), (PADDED, FIXED))]
    torch.testing.assert_close(*scores, rtol=1e-3, atol=1e-3)
    for own, padded in ((OWN.cache.keys, PADDED.cache.keys), (OWN.cache.values, PADDED.cache.values)):
        torch.testing.assert_close(padded[..., :CONTEXT, :], own[..., :CONTEXT, :], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("last", [1, 2, 3, 16, 17, 32])
def test_doublings_leave_no_size_more_than_half_idle(last: int) -> None:
    sizes = doublings(1, last)
    assert sizes[0] == 1
    assert sizes[-1] == last
    assert all(small < large <= 2 * small for small, large in itertools.pairwise(sizes))


class NothingCopied(TorchFunctionMode):
    """Refuses `tensor[indices] = 1`: on a GPU torch 2.13 copies the number from the host, and waits."""

    def __torch_function__(self, function: Any, types: Any, given: Any = (), options: Any = None) -> Any:
        if function is torch.Tensor.__setitem__ and not isinstance(given[2], torch.Tensor):
            index = given[1] if isinstance(given[1], tuple) else (given[1],)
            assert not any(isinstance(one, torch.Tensor) for one in index)
        return function(*given, **(options or {}))


def test_a_pass_a_step_and_a_choice_neither_read_back_from_the_device_nor_wait_for_it() -> None:
    """They run on torch's meta device, where neither is possible; so a graph can record them."""
    with NothingCopied():
        model = SlotModel(tiny_model().to("meta"), slots=3, context=CONTEXT)
        sampler = Sampler(3, CONTEXT, Script([b"a"] * 391, [0], torch.device("meta")))
        for row, top_k in enumerate((20, 0, 1000)):
            sampler.start(row, [5, 6], Sampling(top_k=top_k), seed=7)
        scores = model.prefill([2, 0], [[5, 6], [7]], [0, 0])
        assert sampler.choose(scores, [0, 2]).shape == (2,)
        scores = model.decode([5, 6, 7], [3, 4, 5])
        assert sampler.choose(scores, [0, 1, 2]).is_meta
