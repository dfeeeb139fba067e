"""What a check of scripts/doctor found: how bad it is, a stable code, what it is, and what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from snb.errors import SNBError

Level = Literal["ok", "warning", "not checked", "error"]


@dataclass(frozen=True)
class Finding:
    """One line of the report. Neither text ever holds a secret."""

    level: Level
    code: str
    """Stable, so that a script may look for it; docs and tests name it."""
    found: str
    cure: str = ""
    """What to do; empty where there is nothing to do."""

    def __str__(self) -> str:
        text = f"{self.found}. {self.cure}" if self.cure else self.found
        return f"{self.level:<11}  {self.code}: {' '.join(text.split())}"


def ok(code: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding("ok", code, found)


def warning(code: str, found: str, cure: str) -> Finding:
    """What works, and should not stay so; it stops nothing."""
    return Finding("warning", code, found, cure)


def unchecked(code: str, found: str, cure: str) -> Finding:
    """What nobody could look at, with the reason."""
    return Finding("not checked", code, found, cure)


def unread(code: str, subject: str, failure: SNBError) -> Finding:
    """What nobody could look at because of another fault, with the cure of that."""
    return unchecked(code, f"{subject}: {'; '.join(failure.faults)}", failure.cure)


def error(code: str, found: str, cure: str) -> Finding:
    """What would be published broken, or could not be published."""
    return Finding("error", code, found, cure)


def summary(findings: Iterable[Finding]) -> str:
    """How many there are of each level, the worst first."""
    levels = [finding.level for finding in findings]
    order: tuple[Level, ...] = ("error", "not checked", "warning", "ok")
    return ", ".join(f"{level}: {levels.count(level)}" for level in order)
