"""A result of the self-test: a fault, a doubt, or a check that could not be made."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One result, as a sentence."""

    kind: Literal["fault", "doubt", "blind"]
    """`fault`: wrong, however the card rounds. `doubt`: further off than rounding explains. `blind`: not
    checked."""
    text: str
