"""How far a model's next-token scores are from another's, or its own in another precision, on French texts.

Each text of quality-set.json stands where an answer stands, after its philosopher's persona and a question,
and every token of it is scored given the ones before (teacher forcing). Runs as a program, once for each
model, on the weights that the environment names, or on prepared ones: `write FILE` keeps the scores,
`compare FILE` holds its own against them. Both write JSON to stdout.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from snb.errors import SNBError
from snb.philosophers import persona
from snb.prompt import ChatML
from snb.request import Request
from snb.self_test.rounding import divergence
from snb.settings import Settings
from snb.weights.loader import Loaded, load, load_prepared
from snb.weights.lock import verify
from snb.weights.prepared import Card, Prepared

SET = Path(__file__).with_name("quality-set.json")
TEXTS = json.loads(SET.read_text(encoding="utf-8"))
NAME = f"{SET.stem} {hashlib.sha256(SET.read_bytes()).hexdigest()[:8]}"
"""Figures of two sets cannot be compared, so they carry this."""
TOKENS = 64
"""Of each text; the scores of all of them in fp32 are 300 MB with Qwen's vocabulary."""


@dataclass(frozen=True)
class Quality:
    """Divergences are from the model compared with, Kullback-Leibler in nats, and none without one."""

    tokens: int  # that were scored
    loss: float  # mean surprise at the texts' own tokens, in nats
    mean_divergence: float | None = None
    worst_divergence: float | None = None
    same_choice: float | None = None  # share of tokens at which both find the same token likeliest


def texts(loaded: Loaded, count: int, context: int) -> Iterator[tuple[list[int], list[int]]]:
    """Prompts, and the ids of the texts that follow them."""
    chatml = ChatML(loaded.tokenizer)
    for text in TEXTS[:count]:
        request = Request(user_message=text["question"])
        prompt = chatml.prompt(persona(text["philosopher"]), request, context - TOKENS)
        yield prompt.ids, loaded.tokenizer.encode(text["answer"], add_special_tokens=False).ids[:TOKENS]


@torch.inference_mode()
def scores(loaded: Loaded, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """The scores from which each token of an answer would be taken, fp32 `[tokens, vocabulary]`."""
    ids = torch.tensor([[*prompt, *answer[:-1]]], device=loaded.model.device)
    logits: Tensor = loaded.model(ids, logits_to_keep=len(answer), use_cache=False).logits
    return logits[0].float().cpu()


def quality(own: Sequence[Tensor], answers: Sequence[Sequence[int]], other: Sequence[Tensor] = ()) -> Quality:
    """The figures of scores, held against others of the same texts."""
    mine, ids = torch.cat(list(own)), torch.tensor([token for answer in answers for token in answer])
    loss = cross_entropy(mine, ids).item()
    if not other:
        return Quality(len(ids), loss)
    theirs = torch.cat(list(other))
    nats = torch.stack([divergence(*pair) for pair in zip(mine, theirs, strict=True)])
    same = (mine.argmax(-1) == theirs.argmax(-1)).float().mean().item()
    return Quality(len(ids), loss, nats.mean().item(), nats.max().item(), same)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("write", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--texts", type=int, default=len(TEXTS), help="how many (default all)")
    parser.add_argument("--prepared", type=Path, help="a folder, whatever base and adapter it is made of")
    options = parser.parse_args()
    try:
        settings = Settings.from_environment()
        if options.prepared:
            verify(options.prepared)
            loaded = load_prepared(Prepared(options.prepared, Card.read(options.prepared)), settings)
        else:
            loaded = load(settings)
        prompts, answers = zip(*texts(loaded, options.texts, settings.context), strict=True)
    except SNBError as error:
        print(error, file=sys.stderr)
        return 1
    own = [scores(loaded, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    if options.task == "write":
        torch.save(own, options.file)
    other = torch.load(options.file, weights_only=True) if options.task == "compare" else []
    print(json.dumps(asdict(quality(own, answers, other))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
