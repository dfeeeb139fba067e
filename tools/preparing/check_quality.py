"""Compares two precisions or checkpoints by their scores on French texts, or holds answers against rules.

scripts/check-quality bf16 nf4                       base and adapter, merged, in two precisions
scripts/check-quality fp32 weights/prepared          prepared weights, of whatever they were made
scripts/check-quality weights/old owner/name         two models as they are, without the adapter
scripts/check-quality personas https://host          how the philosophers of an endpoint answer a pupil

Of two models the second is held against the first. One after the other is in memory, in a process of its
own; only the scores are kept, 0.5 GB with Qwen's vocabulary. Base and adapter are those that a boot here
would take: the stand-in where there is no GPU, unless SNB_BASE_MODEL says otherwise. Precisions: bf16, fp16,
fp32, int8, nf4.
"""

import argparse
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snb.settings import PRECISIONS, Settings
from snb.weights.checkpoint import CARD
from snb.weights.fetch import ensure_base
from tools.benchmarking.programs import result
from tools.endpoints.started import reached
from tools.preparing import personas
from tools.preparing.quality import NAME
from tools.rehearsing.reply import hear
from tools.serving import local


def compare(reference: str, other: str, settings: Mapping[str, str]) -> list[dict[str, Any]]:
    """The fields of `quality.Quality` of both; the other's hold what it diverges by.

    Args:
        reference: a precision of base and adapter, a folder of prepared weights, or another folder or
            repository, as is `other`.
        settings: for both, on top of this process's own environment.

    Raises:
        SNBError: a folder or repository is absent or damaged.
        Failed: one of them could not be loaded; with its own words.
    """
    sides, figures = [], []
    for name in (reference, other):  # both, before minutes pass with the first
        side, options = {**settings, "SNB_SLOTS": "1"}, []
        if name in PRECISIONS:
            side |= {"SNB_PREPARED": "none", "SNB_PRECISION": name}
        elif (Path(name) / CARD).exists():
            options = [f"--prepared={name}"]
        else:
            side |= {"SNB_BASE_MODEL": name, "SNB_ADAPTER": "none", "SNB_PREPARED": "none"}
            ensure_base(Settings.from_environment({**os.environ, **side}))
        sides.append((options, side))
    with tempfile.TemporaryDirectory() as folder:
        for task, (options, side) in zip(("write", "compare"), sides, strict=True):
            command = ["-m", "tools.preparing.quality", task, f"{folder}/scores.pt", *options]
            figures.append(result(command, side))
    return figures


def pupil(address: str) -> int:
    """Prints `personas.report` of an endpoint, whose address is one of those that the smoke test takes."""
    endpoint, notices = reached(address), set[str]()

    def ask(inputs: Mapping[str, Any]) -> str:
        reply = hear(endpoint, inputs)
        notices.add(str(reply.metrics.get("notice", "")))
        return reply.text

    for lines in personas.report(ask):
        print(lines, flush=True)
    for notice in filter(None, notices):
        print(f"not the philosophers, for the endpoint says: {notice}")
    return 0


def main() -> int:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("reference")
    parser.add_argument("other")
    asked = parser.parse_args()
    if asked.reference == "personas":
        return pupil(asked.other)
    first, second = compare(asked.reference, asked.other, local.settings())
    print(f"{asked.reference}: {first['loss']:.3f} nats a token")
    print(f"{asked.other}: {second['loss']:.3f} nats a token")
    mean, worst = second["mean_divergence"], second["worst_divergence"]
    print(f"divergence: {mean:.4f} nats, mean over {second['tokens']} tokens; largest {worst:.3f}")
    print(f"same likeliest token: {second['same_choice']:.1%}")
    print(f"texts: {NAME}")
    return 0
