"""What most people would deploy instead: `generate` with a streamer, one request at a time."""

import os
from pathlib import Path
from threading import Thread

import torch
from cog import BasePredictor, ConcatenateIterator, Input, streaming
from transformers import AutoTokenizer, TextIteratorStreamer

from snb.philosophers import persona
from snb.weights.adapter import Adapter
from snb.weights.merge import load_merged


class Predictor(BasePredictor):
    """The same weights, merged alike, behind plain `generate`."""

    def setup(self) -> None:
        """Loads the model."""
        base, adapter = (Path(os.environ[name]) for name in ("SNB_BASE_MODEL", "SNB_ADAPTER"))
        options = {"dtype": torch.float32, "device_map": {"": "cpu"}}
        self.model = load_merged(base, Adapter.read(adapter), **options).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(base)

    @streaming
    def predict(
        self,
        user_message: str = Input(description="The question."),
        max_tokens: int = Input(description="Tokens of the answer, no fewer and no more.", default=64),
    ) -> ConcatenateIterator[str]:
        """Streams the answer."""
        system = {"role": "system", "content": persona("spinoza")}
        inputs = self.tokenizer.apply_chat_template(
            [system, {"role": "user", "content": user_message}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        options = {"max_new_tokens": max_tokens, "min_new_tokens": max_tokens, "do_sample": True}
        Thread(target=self.model.generate, kwargs={**inputs, **options, "streamer": streamer}).start()
        yield from streamer
