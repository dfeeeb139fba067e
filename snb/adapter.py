"""The LoRA adapter: read and refused by name, checked against a base, added to one weight at a time."""

import json
import math
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from snb.errors import AdapterMismatch, AdapterUnsupported, WeightsMissing

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ITS_BASE = "Use the base model that the adapter was trained on"

Shape = tuple[int, ...]
Slot = tuple[str, str]
"""A parameter of the base, and the part that a tensor of the adapter plays in changing it."""

MERGED = {
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias"),
    *("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern"),
}
"""Fields that say what to merge: all their values are handled."""
IRRELEVANT = {
    *("auto_mapping", "base_model_name_or_path", "eva_config", "inference_mode", "lora_dropout"),
    *("peft_version", "revision", "task_type"),
}
"""Fields that only training or bookkeeping reads."""
LIMITED = {
    "peft_type": ("LORA",),
    "bias": ("none", "all", "lora_only"),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}
"""Fields of which some values are handled. The initialisations left out change the base or the merge."""

PREFIX = "base_model.model."
PARTS = {
    "lora_A.weight": ("weight", "A"),
    "lora_B.weight": ("weight", "B"),
    "lora_B.bias": ("bias", "shift"),
    "lora_embedding_A": ("weight", "embedding_A"),
    "lora_embedding_B": ("weight", "embedding_B"),
    "lora_magnitude_vector": ("weight", "magnitude"),
    "base_layer.weight": ("weight", "saved"),
    "base_layer.bias": ("bias", "saved"),
    "weight": ("weight", "saved"),
    "bias": ("bias", "saved"),
}
"""How an adapter key begins, and how it ends: the parameter of the base that it changes, and as what."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """A LoRA adapter in PEFT's format, whose tensors are read from disk when they are used.

    Attributes:
        config: the adapter's `adapter_config.json`.
        tensors: the open `adapter_model.safetensors`, memory-mapped.
        changes: for each parameter of the base (`model.layers.0.self_attn.q_proj.weight`), the keys of the
            tensors that change it, by the part they play.
    """

    config: LoraConfig
    tensors: Any
    changes: Mapping[str, Mapping[str, str]]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Opens an adapter folder; no pickle is ever read.

        Raises:
            WeightsMissing: a file is absent or damaged.
            AdapterUnsupported: a field of the configuration, named, asks for what cannot be merged exactly.
        """
        absent = [f"{name} is absent" for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
        if absent:
            raise WeightsMissing(absent, f"An adapter is a folder with {CONFIG} and {WEIGHTS}")
        try:
            stored = dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
            tensors: Any = safe_open(folder / WEIGHTS, framework="pt")
        except (TypeError, ValueError, SafetensorError) as error:
            raise WeightsMissing(f"the adapter is damaged: {error}", "Download it again") from error
        return cls(_supported(stored), tensors, _changes(tensors.keys()))

    def check(self, base: Qwen2Config) -> None:
        """Compares the adapter with what PEFT would have saved for its configuration and this base.

        PEFT itself wraps the base on the meta device, so its own rules say which modules are wanted, and with
        which ranks. No weight of the base is read; the adapter's tensors are read once.

        Raises:
            AdapterMismatch: every tensor that is absent, not asked for, misshapen or not finite; or nothing
                but zeros to add.
        """
        shapes, asked = self._asked(base)
        held = {
            slot: (key, tuple(self.tensors.get_slice(key).get_shape()))
            for slot, key in _slots(self.changes).items()
        }
        faults = {}
        for name, part in held | asked:
            # What replaces a weight is taken without being asked for: PEFT saves embeddings unbidden.
            unbidden = shapes.get(name) if part == "saved" else None
            key, found = held.get((name, part), ("", None))
            wanted, needed = asked.get((name, part), ("", unbidden))
            if fault := _fault(name in shapes, found, needed):
                faults[key or wanted] = fault
        said = _by_layer(faults) + self._worthless()
        for module in self.config.modules_to_save or ():
            if not any(f"{module}." in name for name in shapes):
                said.append(f"modules_to_save names {module}, which the base does not have")
        if said:
            raise AdapterMismatch(said, ITS_BASE)

    def apply(self, name: str, weight: Tensor) -> Tensor:
        """One parameter of the base with the adapter added.

        LoRA (Hu et al. 2021): W + s·B·A, where s is alpha / r, or alpha / √r for rsLoRA (Kalajdzievski 2023).
        DoRA (Liu et al. 2024): the magnitude m over the norm of each output row, times the same sum. An
        embedding is held transposed, (vocabulary, hidden), so its rows here are its columns.

        Args:
            name: the parameter as the model names it.
            weight: its value, of any floating dtype, on the device where the sum is to be made. Not changed.

        Returns:
            The sum, made in fp32 and rounded once to the dtype of `weight`; `weight` itself where the adapter
            changes nothing. Two fp32 tensors of the same shape are alive meanwhile.
        """
        keys = self.changes.get(name)
        if keys is None:
            return weight
        parts: dict[str, Tensor] = {
            part: self.tensors.get_tensor(key).to(weight.device) for part, key in keys.items()
        }
        start = parts.pop("saved", weight)
        if not parts:
            return start.to(weight.dtype, copy=True)  # what was read is a view of the file
        scaling = self._scaling(name.rpartition(".")[0])
        if "shift" in parts:
            return (parts["shift"].float() * scaling).add_(start).to(weight.dtype)
        embedding = "embedding_A" in parts
        down, up = (parts[f"embedding_{side}" if embedding else side].float() for side in "AB")
        merged = (start.T if embedding else start).to(torch.float32, copy=True)
        merged.add_((up @ down).mul_(scaling))
        if "magnitude" in parts:
            merged.mul_((parts["magnitude"].float() / torch.linalg.norm(merged, dim=1)).unsqueeze(1))
        return (merged.T if embedding else merged).to(weight.dtype)

    def _scaling(self, module: str) -> float:
        config = self.config
        rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern, module), config.r)
        alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern, module), config.lora_alpha)
        return float(alpha / (math.sqrt(rank) if config.use_rslora else rank))

    def _asked(self, base: Qwen2Config) -> tuple[dict[str, Shape], dict[Slot, tuple[str, Shape]]]:
        """The shapes of the base's parameters, and the keys and shapes that PEFT would save."""
        untied = deepcopy(base)
        untied.tie_word_embeddings = False
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PEFT would warn of is an error here, or merged exactly
            model = Qwen2ForCausalLM(untied)
            shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
            try:
                wrapped = get_peft_model(model, deepcopy(self.config))
            except (AttributeError, TypeError, ValueError, re.error) as error:
                raise AdapterMismatch(f"PEFT cannot apply {CONFIG}: {error}", ITS_BASE) from error
            saved = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
        return shapes, {slot: (key, tuple(saved[key].shape)) for slot, key in _slots(_changes(saved)).items()}

    def _worthless(self) -> list[str]:
        """Faults of the values: not finite, or nothing but zeros to add."""
        broken, zero = [], set()
        for key in sorted(self.tensors.keys()):
            tensor = self.tensors.get_tensor(key).float()
            low, high = (bound.item() for bound in tensor.aminmax()) if tensor.numel() else (0, 0)
            if not (math.isfinite(low) and math.isfinite(high)):
                broken.append(f"{key} holds values that are not finite")
            if low == high == 0:
                zero.add(key)
        works = any(zero.isdisjoint(parts.values()) for parts in self.changes.values())
        return broken if works else [*broken, "the adapter changes nothing: what it adds is zero"]


def _supported(stored: Mapping[str, Any]) -> LoraConfig:
    """The configuration, once every field is known to be merged exactly, irrelevant, or unused."""
    cure = f"{CONFIG} must describe a LoRA that leaves its base as it was"
    if faults := _unsupported({"peft_type": None, **stored}):
        raise AdapterUnsupported(faults, cure)
    try:
        return LoraConfig(**{f.name: stored[f.name] for f in fields(LoraConfig) if f.name in stored})
    except (TypeError, ValueError) as error:
        raise AdapterUnsupported(str(error), cure) from error


def _unsupported(stored: Mapping[str, Any]) -> list[str]:
    """Every field, by name, that asks for more than is merged here; PEFT's own default asks for nothing."""
    unused = LoraConfig().to_dict()
    faults = []
    for name in stored.keys() - MERGED - IRRELEVANT:
        value, default = stored[name], unused.get(name)
        if name in LIMITED:
            if value not in LIMITED[name]:
                faults.append(f"{name} is {value!r}, and {', '.join(map(repr, LIMITED[name]))} can be merged")
        elif value != default and (value or default):
            faults.append(f"{name} is {value!r}, and this cannot be merged")
    return sorted(faults)


def _changes(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Sorts adapter keys by the parameter they change; a key of no known form is kept under its own name."""
    changes: dict[str, dict[str, str]] = defaultdict(dict)
    for key in keys:
        ending = next((ending for ending in PARTS if key.endswith(f".{ending}")), "")
        parameter, part = PARTS.get(ending, ("", "unknown"))
        name = key.removeprefix(PREFIX).removesuffix(ending) + parameter
        if not ending or not key.startswith(PREFIX) or part in changes[name]:
            name, part = key, "unknown"
        changes[name][part] = key
    return {name: parts for name, parts in changes.items() if parts}


def _slots(changes: Mapping[str, Mapping[str, str]]) -> dict[Slot, str]:
    return {(name, part): key for name, parts in changes.items() for part, key in parts.items()}


def _fault(known: bool, found: Shape | None, needed: Shape | None) -> str:
    """What is wrong with a tensor of the adapter; empty when it is as PEFT would have saved it."""
    if not known:
        return "changes a weight that the base does not have"
    if needed is None:
        return f"is not asked for by {CONFIG}"
    if found is None:
        return f"is absent, and {CONFIG} asks for it"
    return "" if found == needed else f"has shape {found}, and the base and {CONFIG} need {needed}"


def _by_layer(faults: Mapping[str, str]) -> list[str]:
    """One sentence for a fault that many layers share, with their numbers in braces."""
    layers: dict[tuple[str, str], set[int]] = defaultdict(set)
    for key, fault in faults.items():
        number = re.search(r"(?<=\.layers\.)\d+(?=\.)", key)
        pattern = key if number is None else f"{key[: number.start()]}*{key[number.end() :]}"
        layers[pattern, fault] |= {int(number[0])} if number else set()
    return [
        f"{pattern.replace('*', _braced(sorted(numbers)), 1) if numbers else pattern} {fault}"
        for (pattern, fault), numbers in sorted(layers.items())
    ]


def _braced(numbers: list[int]) -> str:
    """`3`, `{0..47}` or `{0,2,5}`."""
    first, last = numbers[0], numbers[-1]
    if first == last:
        return str(first)
    unbroken = last - first + 1 == len(numbers)
    return f"{{{first}..{last}}}" if unbroken else f"{{{','.join(map(str, numbers))}}}"
