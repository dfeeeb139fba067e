"""One answer by plain `generate`, with neither server nor stream: what the model alone takes.

Runs as a program, on the weights that the environment names; reads the inputs of predict.py as JSON from
stdin and writes to stdout the seconds from the call of `generate` to each of its tokens.
"""

import json
import sys
import time

import torch

from snb.philosophers import persona
from snb.prompt import ChatML
from snb.request import Request
from snb.settings import Settings
from snb.weights.loader import load


class Clock:
    """A streamer of `generate` that notes when each token came; the first call brings the prompt."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _: torch.Tensor) -> None:
        self.times.append(time.monotonic())

    def end(self) -> None:
        """`generate` calls it when the answer is over."""


def measure(inputs: dict[str, object]) -> list[float]:
    """The same prompt, number of tokens and way of sampling as the server's."""
    settings = Settings.from_environment()
    loaded = load(settings)
    request = Request.checked(**inputs)
    sampling = request.sampling
    prompt = ChatML(loaded.tokenizer).prompt(persona(request.philosopher), request, settings.context).ids
    ids = torch.tensor([prompt], device=loaded.model.device)
    options = {
        "max_new_tokens": sampling.max_tokens,
        "min_new_tokens": sampling.max_tokens,
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "repetition_penalty": sampling.repetition_penalty,
    }
    loaded.model.generate(ids[:, -8:], max_new_tokens=2)  # pays for what only the first call pays
    clock = Clock()
    started = time.monotonic()
    loaded.model.generate(ids, attention_mask=torch.ones_like(ids), streamer=clock, **options)
    return [moment - started for moment in clock.times[1:]]


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))
