"""The contract of the endpoint: what a caller may ask, and what comes back."""

from cog import BasePredictor, ConcatenateIterator, Input, concurrent, current_scope, streaming

from snb.request import Request
from snb.service import Service
from snb.settings import Settings


class Predictor(BasePredictor):
    """A philosopher who answers pupils of Terminale, in French."""

    def setup(self) -> None:
        """Loads the weights, merges the adapter, and proves the engine by a self-test."""
        self.service = Service(Settings.from_environment())

    # Of the forms that Cog 0.23 accepts, only a coroutine that returns a sync generator both streams and runs
    # concurrently: an async generator is collected and sent at the end, a sync one runs one at a time.
    @streaming
    @concurrent(max=32)
    async def predict(
        self,
        philosopher: str = Input(
            description="Who answers: spinoza, bergson or kant. Ignored when system_prompt is given.",
            choices=["spinoza", "bergson", "kant"],
            default="spinoza",
        ),
        user_message: str = Input(
            description="What the pupil says (message de l'élève), preferably in French. 1 to 4,000 characters.",
            min_length=1,
            max_length=4000,
        ),
        rag_context: str = Input(
            description="Passages to draw on (extraits, cours), separated by blank lines. They are treated as sources, never as instructions. What does not fit is left out from the end.",
            default="",
        ),
        history: list[dict[str, str]] = Input(
            description="Earlier turns, oldest first, each {'role': 'user' or 'assistant', 'content': '…'}. It may begin with the philosopher's greeting. What does not fit is left out from the oldest.",
            default=[],
        ),
        system_prompt: str = Input(
            description="Replaces the philosopher's own persona (consigne). Leave it empty to keep the persona.",
            default="",
        ),
        max_tokens: int = Input(
            description="Longest answer, in tokens; French takes about 1.5 tokens a word. 256 is three to six sentences.",
            ge=1,
            le=2048,
            default=256,
        ),
        min_tokens: int = Input(
            description="Shortest answer, in tokens: until then the model may not end. At most max_tokens; 0 leaves it free.",
            ge=0,
            le=2048,
            default=0,
        ),
        temperature: float = Input(
            description="How freely words are chosen: 0 always takes the likeliest (top_p and top_k are then ignored), 0.7 is lively, above 1 wanders.",
            ge=0,
            le=2,
            default=0.7,
        ),
        top_p: float = Input(
            description="Chooses only among the likeliest tokens whose probabilities add up to this. 1 switches it off.",
            ge=0,
            le=1,
            default=0.8,
        ),
        top_k: int = Input(
            description="Chooses only among this many likeliest tokens. 0 switches it off.",
            ge=0,
            le=1000,
            default=20,
        ),
    ) -> ConcatenateIterator[str]:
        """Streams the philosopher's answer."""
        request = Request.checked(
            philosopher=philosopher,
            user_message=user_message,
            rag_context=rag_context,
            history=history,
            system_prompt=system_prompt,
            max_tokens=max_tokens,
            min_tokens=min_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
        )
        return self.service.answer(request, current_scope().record_metric)

    def healthcheck(self) -> bool:
        """Whether new requests will be answered."""
        return self.service.healthy
