"""A finding of scripts/doctor: how bad it is, a stable code, what it is, and what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "not checked", "warning", "ok"]
LEVELS: tuple[Level, ...] = ("error", "not checked", "warning", "ok")


@dataclass(frozen=True)
class Finding:
    """One line of the report. Neither text ever holds a secret."""

    level: Level
    """`error`: would be published broken, or could not be; `not checked`: nobody could look at it;
    `warning`: works, and should not stay so."""
    code: str
    """Stable, so that a script may look for it."""
    text: str
    cure: str = ""
    """What to do; empty where there is nothing to do."""

    def __str__(self) -> str:
        text = f"{self.text}. {self.cure}" if self.cure else self.text
        return f"{self.level:<11}  {self.code}: {' '.join(text.split())}"


def summary(findings: Iterable[Finding]) -> str:
    """How many there are of each level, the worst first."""
    levels = [finding.level for finding in findings]
    return ", ".join(f"{level}: {levels.count(level)}" for level in LEVELS)
