"""Which Qwen2 models the engine can serve, decided by the small files before a large one is downloaded."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

from snb.prompt import END, START

log = logging.getLogger(__name__)
SERVED = {
    "architectures": ("Qwen2ForCausalLM",),
    "layer_types": ("full_attention",),
    "rope_type": ("default", "linear", "llama3", "proportional", "yarn"),
    "quant_method": ("none",),
}
"""What config.json may say. A sliding window would need a mask of its own. The rotary types left out
(`dynamic`, `longrope`) depend on the longest row, so an answer would depend on its neighbours. A base is
quantised here, after the merge."""
HINTS = {
    "layer_types": ": without use_sliding_window and layer_types it is served, exactly up to sliding_window",
    "quant_method": ": name the base in full precision, or prepared weights as SNB_PREPARED",
}


def model_faults(folder: Path, stored: Mapping[str, Any], prepared: bool) -> list[str]:
    """Everything in config.json, or else in tokenizer.json, that the engine cannot serve, with what it can.

    Args:
        folder: the one that holds both.
        stored: the content of config.json.
        prepared: whether the weights were quantised by this package.
    """
    served = {**SERVED, "quant_method": ("none", "bitsandbytes")} if prepared else SERVED
    try:
        config = Qwen2Config.from_dict(dict(stored))
        quantization = getattr(config, "quantization_config", None) or {"quant_method": "none"}
        asked = {
            "architectures": config.architectures or ["none"],
            "layer_types": config.layer_types,
            "rope_type": [config.rope_parameters["rope_type"]],
            "quant_method": [quantization["quant_method"]],
        }
        unserved = {field: {*values} - {*served[field]} for field, values in asked.items()}
        if not any(unserved.values()):
            with torch.device("meta"):
                Qwen2ForCausalLM(config)
            return _tokenizer_faults(folder / "tokenizer.json", config.vocab_size)
    except Exception as error:  # a KeyError, a ValueError or whatever transformers raises for a wrong field
        reason = " ".join(str(error).split())
        return [f"config.json describes no Qwen2 model: {type(error).__name__} {reason}"]
    return [
        f"{field} in config.json is {', '.join(sorted(values))}, not {' or '.join(served[field])}"
        f"{HINTS.get(field, '')}"
        for field, values in unserved.items()
        if values
    ]


def _tokenizer_faults(path: Path, vocabulary: int) -> list[str]:
    """Why no prompt can be written with this tokenizer for a model of that many ids."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        return [f"tokenizer.json is no tokenizer: {error}"]
    tokens = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    faults = []
    if absent := [token for token in (START, END) if token not in tokens]:
        faults.append(f"tokenizer.json has no token {' or '.join(absent)}, which prompts are made of")
    if (ids := max(tokenizer.get_vocab().values(), default=-1) + 1) > vocabulary:
        faults.append(f"tokenizer.json has {ids} ids, and vocab_size in config.json is {vocabulary}")
    return faults


def read_config(folder: Path, context: int = 0) -> Qwen2Config:
    """The configuration of an inspected folder; warns if `context` is longer than the model's own.

    That is no error: rotary positions have no limit, and answers only get worse beyond the trained ones.
    """
    config = Qwen2Config.from_pretrained(folder, local_files_only=True)
    rope, positions = config.rope_parameters, config.max_position_embeddings
    stretched = rope.get("factor", 1) * rope.get("original_max_position_embeddings", positions)
    if context > (most := max(positions, int(stretched))):
        log.warning("SNB_CONTEXT is %d, and the model knows %d positions: lower it to that", context, most)
    return config
