"""How far one model's next-token scores are from another's, each loaded in a process of its own in turn."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snb.settings import PRECISIONS
from snb.weights.checkpoint import CARD
from tools.benchmarking.programs import result

QUALITY = ("-m", "tools.preparing.quality")
Figures = dict[str, Any]
"""The fields of `quality.Quality`."""


@dataclass(frozen=True)
class Side:
    """One of two models that are compared."""

    name: str
    arguments: Sequence[str]
    """For quality.py."""
    settings: Mapping[str, str]

    @classmethod
    def of(cls, name: str) -> "Side":
        """A precision of base and adapter, a folder of prepared weights, or another folder or repository."""
        if name in PRECISIONS:
            return cls(name, (), {"SNB_PREPARED": "none", "SNB_PRECISION": name})
        if (Path(name) / CARD).exists():
            return cls(name, (f"--prepared={name}",), {})
        alone = {"SNB_BASE_MODEL": name, "SNB_ADAPTER": "none", "SNB_PREPARED": "none"}
        return cls(name, (), alone)


def compare(reference: Side, other: Side, settings: Mapping[str, str]) -> tuple[Figures, Figures]:
    """The figures of both; the other's hold what it diverges by.

    Args:
        reference: what is compared with.
        other: what is compared.
        settings: for both, on top of this process's own environment.

    Raises:
        Failed: one of them could not be loaded; with its own words.
    """
    with tempfile.TemporaryDirectory() as folder:
        scores = Path(folder) / "scores.pt"
        figures = []
        for side, task in ((reference, "write"), (other, "compare")):
            chosen = {**settings, "SNB_SLOTS": "1", **side.settings}
            figures.append(result([*QUALITY, task, scores, *side.arguments], chosen))
    return figures[0], figures[1]


def table(reference: Side, other: Side, figures: tuple[Figures, Figures]) -> str:
    """Both in words, for a terminal."""
    first, second = figures
    return "\n".join(
        (
            f"{reference.name}: {first['loss']:.3f} nats a token",
            f"{other.name}: {second['loss']:.3f} nats a token",
            f"divergence: {second['mean_divergence']:.4f} nats, mean over {second['tokens']} tokens; "
            f"largest {second['worst_divergence']:.3f}",
            f"same likeliest token: {second['same_choice']:.1%}",
        )
    )
