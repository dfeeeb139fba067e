"""The proof that ends a boot: greedy tokens through the callers' own path, held against plain `generate`."""

import logging
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import kl_div
from transformers import Qwen2ForCausalLM

from snb.engine import Engine
from snb.errors import SelfTestFailed
from snb.generation import Generation
from snb.request import Sampling

log = logging.getLogger(__name__)

TOKENS = 16
GREEDY = Sampling(max_tokens=TOKENS, min_tokens=TOKENS, temperature=0, repetition_penalty=1)
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-3, "bf16": 5e-3, "int8": 0.3, "nf4": 0.03}
"""Largest divergence allowed in each precision, in nats.

Set between what rounding gives and what a wrong kernel gives, both measured on the 135M stand-in on a CPU.
The engine reads a prompt in chunks and `generate` in one piece, which rounds differently: fp32 1e-7, fp16
below 1e-6, bf16 0.0008, nf4 0.008, int8 up to 0.13 (three personas, 2026-11-25). Positions off by one, a
token's value lost, or heads exchanged in one of 30 layers give from 0.1 to 2, in int8 from 0.6 to 10. One
lost token of 900 gives 0.03 to 0.09; only int8 would pass it.
"""


def self_test(engine: Engine, model: Qwen2ForCausalLM, prompt: list[int], precision: str) -> None:
    """Compares the scores behind the first greedy tokens of the engine with those of `generate`.

    Two rows are asked, for a single one neither shares a prefix nor runs the kernels for several. Where
    rounding decides a near tie the tokens differ, and nothing after that can be compared.

    Raises:
        SelfTestFailed: the scores differ by more than rounding in this precision.
    """
    rows = [engine.generate(prompt, GREEDY, seed=0, keep_scores=True) for _ in range(2)]
    for row in rows:
        "".join(row)
    expected = reference(model, prompt)
    divergences = [each for row in rows for each in _divergences(row, *expected)]
    worst = torch.tensor(divergences).max().item()  # Python's max would lose a NaN
    log.info("self-test: %d of %d tokens compared, divergence %.2g nats", len(divergences), 2 * TOKENS, worst)
    if not worst <= TOLERANCE[precision]:  # so written that NaN fails
        raise SelfTestFailed(
            f"the engine diverges by {worst:.2g} nats from the reference; {precision} allows "
            f"{TOLERANCE[precision]:.2g}",
            "A kernel computes wrongly here: try another machine or another SNB_PRECISION",
        )


def _divergences(row: Generation, tokens: list[int], expected: list[Tensor]) -> Iterator[float]:
    """Of each token, up to and with the first that differs."""
    for own, token, scores, expected_scores in zip(
        row.tokens, tokens, row.scores or [], expected, strict=True
    ):
        yield divergence(scores, expected_scores)
        if own != token:
            return


def reference(model: Qwen2ForCausalLM, prompt: Sequence[int]) -> tuple[list[int], list[Tensor]]:
    """Greedy tokens of plain `generate` and the scores that each was taken from, fp32 `[vocabulary]`."""
    ids = torch.tensor([list(prompt)], device=model.device)
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=TOKENS,
        min_new_tokens=TOKENS,
        do_sample=False,
        repetition_penalty=1.0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return output.sequences[0, len(prompt) :].tolist(), [step[0].float().cpu() for step in output.logits]


def divergence(scores: Tensor, expected: Tensor) -> float:
    """Kullback-Leibler divergence of the distribution of `scores` from the expected one, in nats."""
    return kl_div(scores.log_softmax(-1), expected.log_softmax(-1), log_target=True, reduction="sum").item()
