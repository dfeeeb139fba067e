"""Compares two precisions or checkpoints by their scores on French texts, or checks answers by rules.

scripts/check-quality bf16 nf4                       base and adapter, merged, in two precisions
scripts/check-quality fp32 weights/prepared          prepared weights, whatever they were made from
scripts/check-quality weights/old owner/name         two models as they are, without the adapter
scripts/check-quality personas https://host          how the philosophers of an endpoint answer a pupil

The second model is compared with the first. Only one is in memory at a time; of the first only the scores are
kept. Base and adapter are those that a boot here would take: the stand-in if there is no GPU, unless
SNB_BASE_MODEL says otherwise. Precisions: bf16, fp16, fp32, fp8, int8, nf4.
"""

import os
from collections.abc import Mapping
from typing import Any

from snb.settings import Settings
from tools.command import command_line, say
from tools.endpoints.readiness import await_ready
from tools.endpoints.started import reached, url_of
from tools.preparing import personas
from tools.preparing.quality import NAME, compare
from tools.rehearsing.reply import hear, within
from tools.rehearsing.smoke_test import BOOT, LIMIT
from tools.serving import local


def pupil(address: str) -> int:
    """Prints `personas.report` of an endpoint; `address` is as for the smoke test."""
    if url := url_of(address):
        await_ready(url, BOOT, say)
    endpoint, notices = reached(address), set[str]()

    def ask(inputs: Mapping[str, Any]) -> str:
        with within(LIMIT):
            reply = hear(endpoint, inputs)
        notices.add(str(reply.metrics.get("notice", "")))
        return reply.text

    for lines in personas.report(ask):
        print(lines, flush=True)
    for notice in filter(None, notices):
        print(f"not the philosophers, for the endpoint says: {notice}")
    return 0


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("reference")
    parser.add_argument("other")
    asked = parser.parse_args()
    if asked.reference == "personas":
        return pupil(asked.other)
    settings = Settings.from_environment({**os.environ, **local.settings()})
    shown = compare(asked.reference, asked.other, settings)
    for name, loss in zip((asked.reference, asked.other), shown.losses, strict=True):
        print(f"{name}: {loss:.3f} nats a token")
    mean, worst = shown.mean_divergence, shown.worst_divergence
    print(f"divergence: {mean:.4f} nats, mean over {shown.tokens} tokens; largest {worst:.3f}")
    print(f"same likeliest token: {shown.same_choice:.1%}")
    print(f"texts: {NAME}")
    return 0
