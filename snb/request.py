"""What one caller asks for: a frozen object, validated in one place, with every fault reported at once."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from snb.errors import BadInput
from snb.parameters import Sampling, number, number_faults
from snb.philosophers import names

MAX_MESSAGE = 4_000
"""Characters of a pupil's message."""
MAX_TEXT = 20_000
"""Characters of `system_prompt`, which is never cut, or of a turn, which is left out if it does not fit."""
MAX_PASSAGES = 200_000
"""Characters of `rag_context`. What does not fit the context is left out."""
MAX_TURNS = 200
MAX_FAULTS = 10
ROLES = ("user", "assistant")


@dataclass(frozen=True)
class Turn:
    """One earlier message of the conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Request:
    """A validated request. Build it with `Request.checked`."""

    user_message: str
    philosopher: str = "spinoza"
    rag_context: str = ""
    history: tuple[Turn, ...] = ()
    system_prompt: str = ""
    seed: int | None = number(None, 0, 2**32 - 1)
    deadline_seconds: float = number(0, 0, 1800)  # Replicate ends a prediction after 30 minutes
    """Seconds from arrival; 0 leaves it to the server's setting, which is also the upper limit."""
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if self.seed is not None:
            object.__setattr__(self, "seed", int(self.seed))

    @classmethod
    def checked(cls, *, history: Sequence[Mapping[str, Any]] = (), **inputs: Any) -> "Request":
        """Builds a request from the inputs of predict.py.

        Raises:
            BadInput: with the first ten faults, so that a caller can correct them at once.
            TypeError: an input is unknown, missing or of another type.
        """
        faults = list(_history_faults(history))
        turns = () if faults else tuple(Turn(turn["role"], turn["content"]) for turn in history)
        how = {one.name: inputs.pop(one.name) for one in fields(Sampling) if one.name in inputs}
        request = cls(**inputs, history=turns, sampling=Sampling(**how))
        if shown := first_faults(faults, request.faults()):
            raise BadInput(shown)
        return request

    def faults(self) -> Iterable[str]:
        """Every fault as a sentence that names the input and never repeats its text."""
        if self.philosopher not in names():
            yield f"philosopher must be one of {', '.join(names())}"
        if not 1 <= len(self.user_message) <= MAX_MESSAGE:
            yield f"user_message must have 1 to {MAX_MESSAGE} characters, not {len(self.user_message)}"
        yield from number_faults(self)
        yield from _text_faults("rag_context", self.rag_context, MAX_PASSAGES)
        texts = {"user_message": self.user_message, "system_prompt": self.system_prompt}
        texts |= {f"history[{index}].content": turn.content for index, turn in enumerate(self.history)}
        for name, text in texts.items():
            yield from _text_faults(name, text)
        yield from self.sampling.faults()


def first_faults(*faults: Iterable[str]) -> list[str]:
    """The first ten faults and a count of the rest, so that a refusal does not grow with what was sent.

    coglet 0.23.1 never frees the place of a prediction whose answer or error is larger than 8 MiB.
    """
    every = itertools.chain(*faults)
    shown = list(itertools.islice(every, MAX_FAULTS))
    more = sum(1 for _ in every)
    return [*shown, f"and {more} more"] if more else shown


def _history_faults(history: Sequence[Any]) -> Iterable[str]:
    if len(history) > MAX_TURNS:
        yield f"history may have at most {MAX_TURNS} turns, not {len(history)}"
    for index, turn in enumerate(history[:MAX_TURNS]):
        yield from _shape_faults(f"history[{index}]", turn)


def _shape_faults(name: str, turn: Any) -> Iterable[str]:
    if not isinstance(turn, Mapping) or set(turn) != {"role", "content"}:
        yield f"{name} must be an object with role and content and nothing else"
        return
    if turn["role"] not in ROLES:
        yield f"{name}.role must be one of {', '.join(ROLES)}"
    if not isinstance(turn["content"], str):
        yield f"{name}.content must be a text"


def _text_faults(name: str, text: str, most: int = MAX_TEXT) -> Iterable[str]:
    if len(text) > most:
        yield f"{name} may have at most {most} characters, not {len(text)}"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        yield f"{name} holds half of a surrogate pair, which is not a character"
