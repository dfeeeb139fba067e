"""Checks a folder before anything is loaded from it: complete files, no code, a model that is served."""

import json
import logging
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

from snb.errors import WeightsMissing
from snb.prompt import END, START
from snb.weights import adapter

log = logging.getLogger(__name__)
Role = Literal["base", "adapter", "prepared"]
CARD = "snb.card.json"
"""The description that prepared weights carry; see `snb.prepared`."""
REQUIRED: dict[Role, tuple[str, ...]] = {
    "base": ("config.json", "tokenizer.json", "tokenizer_config.json"),
    "adapter": ("adapter_config.json",),
    "prepared": ("config.json", "tokenizer.json", "tokenizer_config.json", CARD),
}
WHOLE: dict[Role, str] = {
    "base": "model.safetensors",
    "adapter": "adapter_model.safetensors",
    "prepared": "model.safetensors",
}
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
LONGEST_HEADER = 100_000_000
"""Bytes; the safetensors library's own limit."""


def inspect(folder: Path, role: Role) -> None:
    """Checks every file that the loader will read, without hashing.

    Raises:
        WeightsMissing: with every fault of the folder.
        AdapterUnsupported: the adapter is of a kind that cannot be merged.
    """
    names = {path.name for path in folder.iterdir() if path.is_file()}
    faults = description_faults(folder, role, names)
    if not faults:
        each = (shard_fault(folder / name) for name in sorted(shards(folder, role)))
        faults = [fault for fault in each if fault]
    if faults:
        raise WeightsMissing(faults, f"Repair {folder}, or name a hub repository instead")


def description_faults(folder: Path, role: Role, names: Set[str]) -> list[str]:
    """Faults that the small JSON files show, so that they are known before a shard is downloaded.

    Args:
        folder: the one that holds the JSON files.
        role: what the folder is of.
        names: every file that the folder has, or will have once it is downloaded.

    Raises:
        AdapterUnsupported: the adapter is of a kind that cannot be merged.
    """
    faults = [f"{name} is absent" for name in REQUIRED[role] if name not in names]
    described: dict[str, dict[str, Any]] = {}
    for name in sorted(names & {*REQUIRED[role], INDEX}):
        try:
            described[name] = _read(folder / name)
            if "auto_map" in described[name]:
                faults.append(f"{name} wants code from the repository to run (auto_map), which is refused")
        except WeightsMissing as error:
            faults += error.faults
    faults += _weight_faults(folder, role, names)
    if not faults and role == "adapter":
        adapter.supported(described[adapter.CONFIG])
    elif not faults:
        faults += model_faults(folder, described["config.json"], prepared=role == "prepared")
    return faults


def shards(folder: Path, role: Role) -> set[str]:
    """The files that hold the tensors: a single one, or those that the index names.

    Raises:
        WeightsMissing: the index is malformed.
    """
    if role == "adapter" or (folder / WHOLE[role]).exists() or not (folder / INDEX).exists():
        return {WHOLE[role]}
    named = _read(folder / INDEX).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise WeightsMissing(f"{INDEX} names no shards")
    return set(named.values())


def shard_fault(path: Path) -> str | None:
    """Compares a file's size with what its header declares; only the header is read.

    The layout is 8 bytes of header length (little-endian), a JSON header whose `data_offsets` count from the
    header's end, then the tensors: https://huggingface.co/docs/safetensors/index#format
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, LONGEST_HEADER)))
            ends = [tensor["data_offsets"][1] for key, tensor in header.items() if key != "__metadata__"]
            declared = 8 + length + max(ends)
        except (ValueError, TypeError, LookupError, AttributeError):
            return f"{path.name} is truncated in its header or is no safetensors file"
    return None if size == declared else f"{path.name} has {size} bytes where its header declares {declared}"


def _weight_faults(folder: Path, role: Role, names: Set[str]) -> list[str]:
    try:
        absent = sorted(shards(folder, role) - names)
    except WeightsMissing as error:
        return error.faults
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    if absent == [WHOLE[role]] and pickles:
        return [f"{', '.join(pickles)}: pickles can run code and are refused; {WHOLE[role]} is wanted"]
    return [f"{name}, which holds weights, is absent" for name in absent]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise WeightsMissing(f"{path.name} is not a readable JSON object")
    return content


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
