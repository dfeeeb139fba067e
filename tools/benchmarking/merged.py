"""Writes base and adapter as one ordinary model folder, for servers that cannot merge while they load.

Runs as a program, so that the memory it takes is free again: `python merged.py FOLDER`. Which weights, the
environment says, as for a boot.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig

from snb.settings import Settings
from snb.weights.adapter import Adapter
from snb.weights.fetch import ensure_adapter, ensure_base
from snb.weights.merge import load_merged
from tools.benchmarking.workload import SAMPLING

NO_TOKEN = -1
"""An end token that no model samples: answers of `transformers serve` are then as long as was asked for."""


def write(folder: Path, settings: Settings) -> None:
    """Weights in fp32, tokenizer, chat template, and a generation config that never ends early."""
    adapter, base = ensure_adapter(settings), ensure_base(settings)
    model = load_merged(base, Adapter.read(adapter) if adapter else None, dtype=torch.float32)
    # transformers 5.23 samples every request of a batch by this file, not by what the request says.
    model.generation_config = GenerationConfig(do_sample=True, eos_token_id=NO_TOKEN, **SAMPLING)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Settings.from_environment())
