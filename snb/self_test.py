"""The proof that ends a boot: greedy tokens through the callers' own path, held against plain `generate`."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM

from snb.engine import Engine
from snb.errors import SelfTestFailed
from snb.request import Sampling

log = logging.getLogger(__name__)

TOKENS = 8
TOLERANCE = {"fp32": 1e-3, "fp16": 0.03, "bf16": 0.1, "int8": 0.3, "nf4": 0.1}
"""Largest allowed `deviation` for each precision; set between rounding and faults (tests/test_self_test.py)."""


def self_test(engine: Engine, model: Qwen2ForCausalLM, prompt: list[int], precision: str) -> None:
    """Compares the scores behind the first greedy tokens of the engine with those of `generate`.

    Tokens may differ where rounding decides a near tie; the scores up to there still have to agree.

    Raises:
        SelfTestFailed: they differ by more than rounding in this precision.
    """
    generation = engine.generate(prompt, Sampling(max_tokens=TOKENS, temperature=0), seed=0, keep_scores=True)
    for _ in generation:
        pass
    tokens, expected = reference(model, prompt)
    agreed = next((i for i, pair in enumerate(zip(generation.tokens, tokens)) if pair[0] != pair[1]), TOKENS)
    worst = max(map(deviation, (generation.scores or [])[: agreed + 1], expected))
    log.info("self-test: %d of %d tokens alike, scores deviate by %.2g at most", agreed, TOKENS, worst)
    if not worst <= TOLERANCE[precision]:  # so written that NaN fails
        raise SelfTestFailed(
            f"the engine's scores deviate by {worst:.2g} from the reference; {precision} allows "
            f"{TOLERANCE[precision]:.2g}",
            "The GPU, its driver or a kernel computes wrongly: try another machine or SNB_PRECISION",
        )


def reference(model: Qwen2ForCausalLM, prompt: Sequence[int]) -> tuple[list[int], list[Tensor]]:
    """Greedy tokens of plain `generate` and the scores that each was taken from, fp32 `[vocabulary]`."""
    ids = torch.tensor([list(prompt)], device=model.device)
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=TOKENS,
        do_sample=False,
        repetition_penalty=1.0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return output.sequences[0, len(prompt) :].tolist(), [step[0].float().cpu() for step in output.logits]


def deviation(scores: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference, in standard deviations of the expected scores."""
    return float((scores - expected).square().mean().sqrt() / expected.std())
