"""What a self-test has to say: a fault that nothing excuses, a doubt, or where it cannot see."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One sentence of a self-test."""

    kind: Literal["fault", "doubt", "blind"]
    """`fault`: wrong whatever the card rounds. `doubt`: more than rounding explains. `blind`: not checked."""
    text: str
