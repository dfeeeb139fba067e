"""A finding of scripts/doctor: how bad it is, a stable code, what it is, and what to do."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "not checked", "warning", "ok"]
LEVELS: tuple[Level, ...] = ("error", "not checked", "warning", "ok")
"""The worst first. `error`: would be published broken, or could not be published; `not checked`: could not be
looked at; `warning`: works, but should not stay so."""


@dataclass(frozen=True)
class Finding:
    """One line of the report. Neither text ever holds a secret."""

    level: Level
    code: str
    text: str
    cure: str = ""
    """What to do; empty if there is nothing to do."""

    def __str__(self) -> str:
        text = f"{self.text}. {self.cure}" if self.cure else self.text
        return f"{self.level:<11}  {self.code}: {' '.join(text.split())}"
