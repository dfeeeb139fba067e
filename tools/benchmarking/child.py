"""What a benchmark needs the weights for, as programs, so that their memory is free again.

`generate INPUTS` answers once by plain `generate`, with neither server nor stream, and writes as JSON the
seconds from its call to each token. `merge FOLDER` writes base and adapter as one ordinary model folder, for
servers that cannot merge while they load.
"""

import json
import sys
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig

from snb.philosophers import persona
from snb.prompt import ChatML
from snb.request import Request
from snb.settings import Settings
from snb.weights.adapter import Adapter
from snb.weights.fetch import ensure_adapter, ensure_base
from snb.weights.loader import load
from snb.weights.merge import load_merged
from tools.benchmarking.workload import SAMPLING

NO_TOKEN = -1
"""An end token that no model samples: answers of `transformers serve` are then as long as was asked for."""


class Clock:
    """A streamer of `generate` that notes when each token came; the first call brings the prompt."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _: torch.Tensor) -> None:
        self.times.append(time.monotonic())

    def end(self) -> None:
        """`generate` calls it when the answer is over."""


def generate(settings: Settings, request: Request) -> list[float]:
    """The same prompt, number of tokens and way of sampling as the server's."""
    loaded, sampling = load(settings), request.sampling
    prompt = ChatML(loaded.tokenizer).prompt(persona(request.philosopher), request, settings.context).ids
    ids = torch.tensor([prompt], device=loaded.model.device)
    given = {name: getattr(sampling, name) for name in (*SAMPLING, "repetition_penalty")}
    given |= {"max_new_tokens": sampling.max_tokens, "min_new_tokens": sampling.max_tokens, "do_sample": True}
    loaded.model.generate(ids[:, -8:], max_new_tokens=2)  # pays for what only the first call pays
    clock, started = Clock(), time.monotonic()
    loaded.model.generate(ids, attention_mask=torch.ones_like(ids), streamer=clock, **given)
    return [moment - started for moment in clock.times[1:]]


def merge(settings: Settings, folder: Path) -> None:
    """Weights in fp32, tokenizer, chat template, and a generation config that never ends early."""
    adapter, base = ensure_adapter(settings), ensure_base(settings)
    model = load_merged(base, Adapter.read(adapter) if adapter else None, dtype=torch.float32)
    # transformers 5.23 samples every request of a batch by this file, not by what the request says.
    model.generation_config = GenerationConfig(do_sample=True, eos_token_id=NO_TOKEN, **SAMPLING)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


if __name__ == "__main__":
    task, given = sys.argv[1:]
    if task == "merge":
        merge(Settings.from_environment(), Path(given))
    else:
        print(json.dumps(generate(Settings.from_environment(), Request.checked(**json.loads(given)))))
