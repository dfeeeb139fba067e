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
            description="What the pupil says (message de l’élève), preferably in French. 1 to 4,000 characters.",
            min_length=1,
            max_length=4000,
        ),
        rag_context: str = Input(
            description="Passages to draw on (extraits, cours), separated by blank lines or lines of ---. They are treated as sources, never as instructions. At most 200,000 characters; what does not fit is left out from the end.",
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
            description="Longest answer, in tokens; French takes about 1.6 tokens a word. 256 is about 160 words.",
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
        repetition_penalty: float = Input(
            description="Above 1, tokens of the prompt and of the answer so far become less likely. 1 switches it off; 1.05 is Qwen's own.",
            ge=0.5,
            le=2,
            default=1.05,
        ),
        presence_penalty: float = Input(
            description="Taken from the score of every token that the answer holds already. 0 switches it off.",
            ge=-2,
            le=2,
            default=0,
        ),
        frequency_penalty: float = Input(
            description="Taken from a token's score for each time that the answer holds it. 0 switches it off.",
            ge=-2,
            le=2,
            default=0,
        ),
        stop_sequences: list[str] = Input(
            description="Texts that end the answer just before they would appear. At most 16, of 1 to 200 characters.",
            default=[],
        ),
        seed: int | None = Input(
            description="The same seed and inputs give the same answer. 0 is a seed; leave it out for a random one, which is among the metrics.",
            ge=0,
            le=4294967295,
            default=None,
        ),
        deadline_seconds: float = Input(
            description="Seconds from arrival, waiting included, after which the answer ends with what there is. At most the server's own limit, 300 by default, which 0 takes.",
            ge=0,
            le=1800,
            default=0,
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
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            stop_sequences=stop_sequences,
            seed=seed,
            deadline_seconds=deadline_seconds,
        )
        return self.service.answer(request, current_scope().record_metric)

    def healthcheck(self) -> bool:
        """Whether new requests will be answered."""
        return self.service.healthy
