"""What one caller asks for: frozen, validated in one place, every fault reported at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from snb.errors import BadInput
from snb.philosophers import names

MAX_MESSAGE = 4_000
"""Characters of a pupil's message."""
MAX_TEXT = 20_000
"""Characters of any other text. Within it, what does not fit the context is left out, not refused."""
MAX_TURNS = 200
MAX_STOPS, MAX_STOP = 16, 200
"""Stop strings of a request, and characters of each."""
MAX_DEADLINE = 1800
"""Seconds; Replicate ends a prediction after 30 minutes."""
ROLES = ("user", "assistant")


@dataclass(frozen=True)
class Turn:
    """One earlier message of the conversation."""

    role: str
    content: str


BOUNDS = {
    "max_tokens": (1, 2048),
    "min_tokens": (0, 2048),
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_k": (0, 1000),
    "repetition_penalty": (0.5, 2),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
"""The same as in predict.py, for callers who come another way."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and when to stop.

    `temperature` 0 is greedy; `top_k` 0, `top_p` 1, `repetition_penalty` 1 and the other penalties at 0
    switch that part off.
    """

    max_tokens: int = 256
    min_tokens: int = 0
    temperature: float = 0.7
    top_p: float = 0.8
    top_k: int = 20
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop_sequences: tuple[str, ...] = ()
    french: bool = False
    """Whether tokens of other scripts are left out (`snb.script`)."""

    def __post_init__(self) -> None:
        # Cog's server lets a whole float (5.0, 1e2) through where an integer is declared.
        for name in ("max_tokens", "min_tokens", "top_k"):
            object.__setattr__(self, name, int(getattr(self, name)))

    def faults(self) -> Iterable[str]:
        """Every value outside its bounds, as a sentence."""
        for name, (low, high) in BOUNDS.items():
            if not low <= getattr(self, name) <= high:  # so written that NaN is a fault
                yield f"{name} must be from {low} to {high}"
        if self.min_tokens > self.max_tokens:
            yield "min_tokens must be at most max_tokens"
        yield from self._stop_faults()

    def _stop_faults(self) -> Iterable[str]:
        if len(self.stop_sequences) > MAX_STOPS:
            yield f"stop_sequences may have at most {MAX_STOPS} entries, not {len(self.stop_sequences)}"
        for index, stop in enumerate(self.stop_sequences):
            if not 1 <= len(stop) <= MAX_STOP:
                yield f"stop_sequences[{index}] must have 1 to {MAX_STOP} characters, not {len(stop)}"


@dataclass(frozen=True)
class Request:
    """A validated request. Build it with `Request.checked`."""

    user_message: str
    philosopher: str = "spinoza"
    rag_context: str = ""
    history: tuple[Turn, ...] = ()
    system_prompt: str = ""
    seed: int | None = None
    deadline_seconds: float = 0
    """Seconds from arrival; 0 leaves it to the server's setting."""
    sampling: Sampling = field(default_factory=Sampling)

    @classmethod
    def checked(
        cls,
        *,
        user_message: str,
        philosopher: str = "spinoza",
        rag_context: str = "",
        history: Sequence[Mapping[str, Any]] = (),
        system_prompt: str = "",
        seed: int | None = None,
        deadline_seconds: float = 0,
        stop_sequences: Sequence[str] = (),
        **sampling: Any,
    ) -> "Request":
        """Raises BadInput with every fault, so that a caller mends them all at once."""
        faults = [
            fault for index, turn in enumerate(history) for fault in _shape_faults(f"history[{index}]", turn)
        ]
        turns = () if faults else tuple(Turn(turn["role"], turn["content"]) for turn in history)
        how = Sampling(**sampling, stop_sequences=tuple(stop_sequences))
        seed = None if seed is None else int(seed)
        request = cls(
            user_message, philosopher, rag_context, turns, system_prompt, seed, deadline_seconds, how
        )
        if faults := [*faults, *request.faults()]:
            raise BadInput(faults, "See the inputs' descriptions for what is allowed")
        return request

    def faults(self) -> Iterable[str]:
        """Every fault as a sentence that names the input and never repeats its text."""
        if self.philosopher not in names():
            yield f"philosopher must be one of {', '.join(names())}"
        if not 1 <= len(self.user_message) <= MAX_MESSAGE:
            yield f"user_message must have 1 to {MAX_MESSAGE} characters, not {len(self.user_message)}"
        if len(self.history) > MAX_TURNS:
            yield f"history may have at most {MAX_TURNS} turns, not {len(self.history)}"
        if self.seed is not None and not 0 <= self.seed < 2**32:
            yield "seed must be from 0 to 4294967295"
        if not 0 <= self.deadline_seconds <= MAX_DEADLINE:
            yield f"deadline_seconds must be from 0 to {MAX_DEADLINE}"
        texts = {"user_message": self.user_message, "rag_context": self.rag_context}
        texts["system_prompt"] = self.system_prompt
        texts |= {f"history[{index}].content": turn.content for index, turn in enumerate(self.history)}
        for name, text in texts.items():
            yield from _text_faults(name, text)
        yield from self.sampling.faults()


def _shape_faults(name: str, turn: Any) -> Iterable[str]:
    if not isinstance(turn, Mapping) or set(turn) != {"role", "content"}:
        yield f"{name} must be an object with role and content and nothing else"
        return
    if turn["role"] not in ROLES:
        yield f"{name}.role must be one of {', '.join(ROLES)}"
    if not isinstance(turn["content"], str):
        yield f"{name}.content must be a text"


def _text_faults(name: str, text: str) -> Iterable[str]:
    if len(text) > MAX_TEXT:
        yield f"{name} may have at most {MAX_TEXT} characters, not {len(text)}"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        yield f"{name} holds half of a surrogate pair, which is not a character"
