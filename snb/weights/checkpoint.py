"""Checks a folder before anything is loaded from it: complete files, no code, a model that can be served."""

import logging
import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM
from transformers.quantizers.auto import AutoQuantizationConfig

from snb.errors import WeightsMissing
from snb.prompt import END, START
from snb.weights import adapter, document
from snb.weights.quantization import METHOD

log = logging.getLogger(__name__)
Role = Literal["base", "adapter", "prepared"]
CARD = "snb.card.json"
"""The description that prepared weights carry; see `snb.weights.prepared`."""
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
GENERATION = "generation_config.json"
SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.safetensors")
PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
MOST_LAYERS = 256
"""Three times as many as the largest Qwen2. Each takes 3 ms to build, even without weights (on two cores)."""

Shape = tuple[int, ...]


def inspect(folder: Path, role: Role, names: Set[str] | None = None) -> None:
    """Checks every file that the loader will read, without hashing.

    Args:
        folder: the one that the weights are in.
        role: what the weights are.
        names: the files in it that may be loaded; None for all.

    Raises:
        WeightsMissing: with every fault of the folder.
        AdapterUnsupported: the adapter is of a kind that cannot be merged.
    """
    if names is None:
        names = {path.name for path in folder.iterdir() if path.is_file()}
    faults = description_faults(folder, role, names)
    if not faults:
        faults = list(_tensor_faults(folder, role))
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
    for name in sorted(names & {*REQUIRED[role], INDEX, GENERATION}):
        try:
            described[name] = document.read(folder / name)
            if "auto_map" in described[name]:
                faults.append(f"{name} wants code from the repository to run (auto_map), which is refused")
        except WeightsMissing as error:
            faults += error.faults
    faults += _weight_faults(folder, role, names)
    if not faults and role == "adapter":
        adapter.supported(described[adapter.CONFIG])
    elif not faults:
        faults += model_faults(folder, described["config.json"], prepared=role == "prepared")
        faults += _generation_faults(described.get(GENERATION, {}))
    return faults


def shards(folder: Path, role: Role) -> set[str]:
    """The names of the files with the tensors: those in the index, or a single one if there is no index.

    Raises:
        WeightsMissing: the index is malformed, or names something other than safetensors files beside it.
    """
    if role == "adapter" or not (folder / INDEX).exists():
        return {WHOLE[role]}
    named = document.read(folder / INDEX).get("weight_map")
    files = list(named.values()) if isinstance(named, dict) else []
    if not files or not all(isinstance(name, str) and SHARD.fullmatch(name) for name in files):
        raise WeightsMissing(f"{INDEX} names no shards, or something else than .safetensors files beside it")
    return set(files)


def tensor_shapes(path: Path) -> dict[str, Shape]:
    """The shape of each tensor in a file, of which only the header is read.

    Raises:
        WeightsMissing: it is no safetensors file, it is truncated, or its header does not match its bytes.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in sorted(file.keys())}
    except (OSError, SafetensorError) as error:
        raise WeightsMissing(f"{path.name} is truncated or damaged: {error}") from error


def _tensor_faults(folder: Path, role: Role) -> Iterator[str]:
    """Faults that the headers of the weights show, before memory is spent on what config.json says."""
    stored: dict[str, Shape] = {}
    for name in sorted(shards(folder, role)):
        try:
            stored |= tensor_shapes(folder / name)
        except WeightsMissing as error:
            yield from error.faults
    if role == "adapter" or not stored:
        return
    config = document.read(folder / "config.json")
    for name, shape in model_shapes(_config(config)).items():
        if name not in stored:
            yield f"{name} is absent"
        elif stored[name] != shape and not config.get("quantization_config"):
            yield f"{name} has shape {stored[name]}, and config.json says {shape}"


def model_shapes(config: Qwen2Config) -> dict[str, Shape]:
    """The shape of each parameter of a model, by name; a tied embedding appears once."""
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _weight_faults(folder: Path, role: Role, names: Set[str]) -> list[str]:
    try:
        absent = sorted(shards(folder, role) - names)
    except WeightsMissing as error:
        return error.faults
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    if absent == [WHOLE[role]] and pickles:
        return [f"{', '.join(pickles)}: pickles can run code and are refused; {WHOLE[role]} is wanted"]
    return [f"{name}, which holds weights, is absent" for name in absent]


FIELDS = {
    *("architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "hidden_act"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps", "tie_word_embeddings"),
    *("max_position_embeddings", "rope_parameters", "rope_scaling", "rope_theta", "layer_types"),
    *("use_sliding_window", "sliding_window", "max_window_layers", "dtype", "torch_dtype"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "quantization_config", "snb_notice"),
}
"""Fields read from config.json: the model. Others are switches of transformers 5.23, which load other files
(`transformers_weights`), change code (`fusion_config`) or make lists of any length (`num_labels`)."""
SERVED = {
    "architectures": ("Qwen2ForCausalLM",),
    "layer_types": ("full_attention",),
    "rope_type": ("default", "linear", "llama3", "proportional", "yarn"),
    "quant_method": ("none",),
}
"""Values that config.json may hold. A sliding window would need a mask of its own. The rotary types left out
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
    served = {**SERVED, "quant_method": ("none", "bitsandbytes", METHOD)} if prepared else SERVED
    try:
        config = _config(stored)
        quantization = getattr(config, "quantization_config", None) or {"quant_method": "none"}
        if prepared and quantization["quant_method"] in ("bitsandbytes", METHOD):
            AutoQuantizationConfig.from_dict(quantization)
        asked = {
            "architectures": config.architectures or ["none"],
            "layer_types": config.layer_types,
            "rope_type": [config.rope_parameters["rope_type"]],
            "quant_method": [quantization["quant_method"]],
        }
        unserved = {field: {*values} - {*served[field]} for field, values in asked.items()}
        if not any(unserved.values()):
            model_shapes(config)
            _positions(config)
            return _tokenizer_faults(folder / "tokenizer.json", config.vocab_size)
    except Exception as error:  # a KeyError, a ValueError or whatever transformers raises for a wrong field
        reason = " ".join(str(error).split())
        return [f"config.json describes no Qwen2 model: {type(error).__name__} {reason}"]
    return [
        f"{field} in config.json is {', '.join(sorted(map(str, values)))}, not {' or '.join(served[field])}"
        f"{HINTS.get(field, '')}"
        for field, values in unserved.items()
        if values
    ]


def _tokenizer_faults(path: Path, vocabulary: int) -> list[str]:
    """Why no prompt can be written with this tokenizer for a model of that many ids."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        return [f"tokenizer.json is not a tokenizer: {error}"]
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
    config = _config(document.read(folder / "config.json"))
    if context > (most := _positions(config)):
        log.warning("SNB_CONTEXT is %d, and the model knows %d positions: lower it to that", context, most)
    return config


def read_generation(folder: Path) -> GenerationConfig | None:
    """The generation config of an inspected folder; None if it has none."""
    file = folder / GENERATION
    return GenerationConfig.from_dict(document.read(file)) if file.exists() else None


def _config(stored: Mapping[str, Any]) -> Qwen2Config:
    """The configuration that the content of a config.json describes. Raises whatever transformers raises."""
    if isinstance(layers := stored.get("num_hidden_layers"), int) and layers > MOST_LAYERS:
        raise ValueError(f"num_hidden_layers is {layers}, more than {MOST_LAYERS}")
    taken = {name: value for name, value in stored.items() if name in FIELDS}
    if not taken.get("quantization_config"):
        taken.pop("quantization_config", None)
    config = Qwen2Config.from_dict(taken)
    if not isinstance(config.dtype, torch.dtype | None):
        raise TypeError(f"dtype is {config.dtype!r}")
    return config


def _positions(config: Qwen2Config) -> float:
    rope, positions = config.rope_parameters, config.max_position_embeddings
    return float(
        max(positions, rope.get("factor", 1) * rope.get("original_max_position_embeddings", positions))
    )


def _generation_faults(stored: Mapping[str, Any]) -> list[str]:
    """Why no GenerationConfig can be made of a file, or why it names no end tokens."""
    try:
        ends = GenerationConfig.from_dict(dict(stored)).eos_token_id
    except Exception as error:  # transformers raises whatever it runs into
        return [f"{GENERATION} is refused: {type(error).__name__} {' '.join(str(error).split())}"]
    sound = all(end is None or isinstance(end, int) for end in (ends if isinstance(ends, list) else [ends]))
    return [] if sound else [f"{GENERATION} has no valid eos_token_id"]
