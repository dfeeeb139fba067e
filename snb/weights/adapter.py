"""The LoRA adapter: reads it, checks it against a base model, and adds it to one weight at a time."""

import logging
import math
import re
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import regex
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from snb.errors import AdapterMismatch, AdapterUnsupported, WeightsMissing
from snb.weights import document

if TYPE_CHECKING:
    # PEFT, which brings bitsandbytes, takes seconds to import; a boot from prepared weights does without it.
    from peft import LoraConfig

log = logging.getLogger(__name__)
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ITS_BASE = "Use the base model that the adapter was trained on: SNB_BASE_MODEL=owner/name"
AGAIN = "Download the adapter again"
LIST = "List the modules by name"

Shape = tuple[int, ...]

MERGED = {
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias"),
    *("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern"),
}
"""Fields that say what to merge; every value of them is handled, within the bounds below."""
IRRELEVANT = {
    *("auto_mapping", "base_model_name_or_path", "eva_config", "inference_mode", "lora_dropout"),
    *("peft_version", "revision", "task_type"),
}
"""Fields that matter to training or bookkeeping only."""
LIMITED = {
    "peft_type": ("LORA",),
    "bias": ("none", "all", "lora_only"),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}
"""Fields of which only these values are handled. Initialisations left out change the base or the merge."""

SEARCHED = ("target_modules", "exclude_modules")
"""Fields that may be a regular expression, which has to match a module's whole name."""
NAMED = ("modules_to_save", "layers_pattern", "rank_pattern", "alpha_pattern")
"""Fields whose entries PEFT turns into expressions; here they have to be names, which cannot backtrack."""
NAME = re.compile(r"[\w.\\^$-]{1,200}")
MOST_NAMED, MOST_LISTED, LONGEST = 500, 4096, 10_000
"""Distinct entries of NAMED together, entries of any one field, characters of one entry. PEFT matches each
with each module of the base, and `re` caches 512 expressions: twice as many took minutes for 48 layers."""
PATIENCE = 2.0
"""Seconds that one expression may take for all modules; usual ones take milliseconds."""

PREFIX = "base_model.model."
PARTS = {
    "lora_A.weight": ("weight", "A"),
    "lora_B.weight": ("weight", "B"),
    "lora_B.bias": ("bias", "shift"),
    "lora_embedding_A": ("weight", "embedding_A"),
    "lora_embedding_B": ("weight", "embedding_B"),
    "lora_magnitude_vector": ("weight", "magnitude"),
    "base_layer.weight": ("weight", "base"),
    "base_layer.bias": ("bias", "base"),
    "original_module.weight": ("weight", "base"),
    "original_module.bias": ("bias", "base"),
    "modules_to_save.weight": ("weight", "copy"),
    "modules_to_save.bias": ("bias", "copy"),
    "weight": ("weight", "saved"),
    "bias": ("bias", "saved"),
}
"""Endings of an adapter key, which begins with PREFIX: the parameter of the module that the tensor changes,
and the part it plays."""
REPLACING = {"base", "saved", "magnitude"}
"""Parts that replace or rescale the base's values, so whether they change anything depends on those; all
other parts are added."""
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True, eq=False)
class Adapter:
    """A LoRA adapter in PEFT's format, whose tensors are read from disk when they are used.

    Attributes:
        config: the adapter's `adapter_config.json`.
        tensors: the open `adapter_model.safetensors`, memory-mapped.
        changes: for each parameter of the base (`model.layers.0.self_attn.q_proj.weight`), the keys of the
            tensors that change it, by the part each plays.
    """

    config: "LoraConfig"
    tensors: Any
    changes: Mapping[str, Mapping[str, str]]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Opens an adapter folder; pickles are never read.

        Raises:
            WeightsMissing: a file is absent or damaged.
            AdapterUnsupported: a field of the configuration, which the error names, cannot be merged exactly.
        """
        absent = [f"{name} is absent" for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
        if absent:
            raise WeightsMissing(absent, f"Name a folder with {CONFIG} and {WEIGHTS}")
        try:
            tensors: Any = safe_open(folder / WEIGHTS, framework="pt")
        except (OSError, SafetensorError) as error:
            raise WeightsMissing(f"{WEIGHTS} is truncated or damaged: {error}", AGAIN) from error
        return cls(supported(document.read(folder / CONFIG, AGAIN)), tensors, _changes(tensors.keys()))

    def fitted(self, base: Qwen2Config) -> Self:
        """Checks the adapter against a base, and returns it as PEFT's model of that base would load it.

        PEFT itself wraps the base on the meta device, so PEFT's rules decide which tensors are required,
        which are optional (embeddings that were saved unasked), and their shapes. No weight of the base is
        read; the adapter's tensors are read once.

        Raises:
            AdapterUnsupported: an expression of the configuration cannot be matched in seconds.
            AdapterMismatch: with every tensor that is absent, not asked for, misshapen, not finite or
                different from its own copy; or for an adapter that adds only zeros.
        """
        parameters, wanted, allowed = self._asked(base)
        held = {key: name for name, parts in self.changes.items() for key in parts.values()}
        faults = dict.fromkeys(wanted - held.keys(), f"is absent, and {CONFIG} asks for it")
        for key, name in held.items():
            shape = tuple(self.tensors.get_slice(key).get_shape())
            if name not in parameters:
                faults[key] = "changes a weight that the base does not have"
            elif key not in allowed:
                faults[key] = f"is not asked for by {CONFIG}"
            elif shape != allowed[key]:
                faults[key] = f"has shape {shape}, and the base and {CONFIG} need {allowed[key]}"
        problems = [*_by_layer(faults), *self._value_faults()]
        problems += [
            f"modules_to_save names {module}, which the base does not have"
            for module in self.config.modules_to_save or ()
            if not any(f"{module}." in name for name in parameters)
        ]
        if problems:
            raise AdapterMismatch(problems, ITS_BASE)
        if unasked := sorted(held.keys() - wanted):
            log.info("%s does not name these, and PEFT loads them: %s", CONFIG, ", ".join(unasked))
        return replace(self, changes=self._settled(wanted, bool(base.tie_word_embeddings)))

    def apply(self, name: str, weight: Tensor) -> Tensor:
        """One parameter of the base with the adapter added.

        LoRA (Hu et al. 2021): W + s·B·A, where s is alpha / r, or alpha / √r for rsLoRA (Kalajdzievski 2023).
        DoRA (Liu et al. 2024): the magnitude m over the norm of each output row, times the same sum. An
        embedding is stored transposed, (vocabulary, hidden), so its rows here are its columns.

        Args:
            name: the parameter as the model names it.
            weight: its value, of any floating dtype, on the device that is to compute the sum. Not modified.

        Returns:
            The sum, computed in fp32 and rounded once to the dtype of `weight`; `weight` itself where the
            adapter does not change it. At the peak two fp32 tensors of that shape are in memory.
        """
        keys = self.changes.get(name)
        if keys is None:
            return weight
        parts: dict[str, Tensor] = {
            part: self.tensors.get_tensor(key).to(weight.device) for part, key in keys.items()
        }
        start = parts.pop("saved", parts.pop("base", weight))
        if not parts:
            return start.to(weight.dtype, copy=True)  # a tensor read from the file is a view of it
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
        from peft.utils.other import get_pattern_key

        config = self.config
        rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern, module), config.r)
        alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern, module), config.lora_alpha)
        return float(alpha / (math.sqrt(rank) if config.use_rslora else rank))

    def _asked(self, base: Qwen2Config) -> tuple[set[str], set[str], dict[str, Shape]]:
        """Names of the base's parameters, keys that PEFT always saves, and shapes of all that it may save."""
        from peft import get_peft_model, get_peft_model_state_dict

        untied = deepcopy(base)
        untied.tie_word_embeddings = False
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PEFT warns about is an error here or is merged exactly
            model = Qwen2ForCausalLM(untied)
            parameters = {name for name, _ in model.named_parameters()}
            config = self._spelt_out([name for name, _ in model.named_modules()])
            try:
                wrapped = get_peft_model(model, config)
            except Exception as error:  # PEFT and torch raise whatever they run into
                raise AdapterMismatch(f"PEFT cannot apply {CONFIG}: {error}", ITS_BASE) from error
            wanted = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
            allowed = get_peft_model_state_dict(wrapped, save_embedding_layers=True)
        return parameters, wanted, {key: tuple(tensor.shape) for key, tensor in allowed.items()}

    def _spelt_out(self, modules: list[str]) -> "LoraConfig":
        """The configuration with names in place of expressions: `re`, which PEFT uses, has no time limit."""
        from peft.utils import INCLUDE_LINEAR_LAYERS_SHORTHAND

        config = deepcopy(self.config)
        for field in SEARCHED:
            expression = getattr(config, field)
            if isinstance(expression, str) and expression != INCLUDE_LINEAR_LAYERS_SHORTHAND:
                try:
                    setattr(config, field, _matching(expression, modules))
                except (regex.error, RecursionError, TimeoutError) as error:
                    raise AdapterUnsupported(f"{field} cannot be matched: {error}", LIST) from error
        return config

    def _settled(self, wanted: Set[str], tied: bool) -> dict[str, dict[str, str]]:
        """The changes, without copies; a saved weight that the configuration does not ask for counts as base.

        Tied embeddings are one weight of the base under two names; PEFT loads the output's last, so it wins.
        """
        changes: dict[str, dict[str, str]] = defaultdict(dict)
        for name, parts in self.changes.items():
            for part, key in parts.items():
                if part != "copy":
                    changes[name]["base" if part == "saved" and key not in wanted else part] = key
        if tied and (shared := changes[HEAD].get("base") or changes[EMBEDDING].get("base")):
            changes[HEAD]["base"] = changes[EMBEDDING]["base"] = shared
        return {name: parts for name, parts in changes.items() if parts}

    def _value_faults(self) -> Iterator[str]:
        """Faults of the tensors' values: not finite, different from a copy, or only zeros to add."""
        zero = set()
        for key in sorted(self.tensors.keys()):
            tensor = self.tensors.get_tensor(key).float()
            low, high = (bound.item() for bound in tensor.aminmax()) if tensor.numel() else (0, 0)
            if not (math.isfinite(low) and math.isfinite(high)):
                yield f"{key} holds values that are not finite"
            if low == high == 0:
                zero.add(key)
        works = False
        for name, parts in self.changes.items():
            scaling = self._scaling(name.rpartition(".")[0])
            saved, copy = parts.get("saved"), parts.get("copy")
            if saved and copy and not torch.equal(*map(self.tensors.get_tensor, (saved, copy))):
                yield f"{copy} differs from {saved}, of which it is a copy"
            added = scaling != 0 and zero.isdisjoint(parts.values())
            works |= added or not REPLACING.isdisjoint(parts)
        if not works:
            yield "the adapter changes nothing: what it adds is zero"


def supported(stored: Mapping[str, Any]) -> "LoraConfig":
    """Parses a configuration in which every field is merged exactly, irrelevant or unused.

    Raises:
        AdapterUnsupported: with every field that is none of these.
    """
    from peft import LoraConfig

    cure = f"{CONFIG} must describe a LoRA that leaves its base as it was"
    if faults := [*_unsupported({"peft_type": None, **stored}), *_unbounded(stored), *_uncountable(stored)]:
        raise AdapterUnsupported(faults, cure)
    try:
        return LoraConfig(**{f.name: stored[f.name] for f in fields(LoraConfig) if f.name in stored})
    except (TypeError, ValueError) as error:
        raise AdapterUnsupported(str(error), cure) from error


def _unsupported(stored: Mapping[str, Any]) -> list[str]:
    """A sentence for each field whose value cannot be merged here; PEFT's own defaults all can."""
    from peft import LoraConfig

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


def _matching(expression: str, modules: list[str]) -> list[str]:
    """The modules whose whole names match. Raises TimeoutError, or regex.error for an invalid expression."""
    end = time.monotonic() + PATIENCE
    return [m for m in modules if regex.fullmatch(expression, m, timeout=max(end - time.monotonic(), 0.001))]


def _unbounded(stored: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each field whose type is not PEFT's, or that PEFT might spend hours matching."""
    entries = {name: _entries(stored.get(name)) for name in (*SEARCHED, *NAMED)}
    for name, texts in entries.items():
        if len(texts) > MOST_LISTED or not all(isinstance(text, str) for text in texts):
            yield f"{name} is not a list of at most {MOST_LISTED:,} names"
        elif any(len(text) > LONGEST for text in texts):
            yield f"{name} has an entry of more than {LONGEST:,} characters"
        elif name in NAMED and not all(map(NAME.fullmatch, texts)):
            yield f"{name} has an entry that is no module's name"
    if len({str(text) for name in NAMED for text in entries[name]}) > MOST_NAMED:
        yield f"{', '.join(NAMED)} have more than {MOST_NAMED} entries"
    layers = _entries(stored.get("layers_to_transform"))
    if len(layers) > MOST_LISTED or not all(isinstance(layer, int) for layer in layers):
        yield f"layers_to_transform is not a list of at most {MOST_LISTED:,} numbers"


def _entries(value: Any) -> list[Any]:
    return list(value or ()) if isinstance(value, list | dict | None) else [value]


def _uncountable(stored: Mapping[str, Any]) -> Iterator[str]:
    """Faults of ranks and of alphas: no number, too large for a shape or for fp32, or a rank below 1."""
    for name, pattern, kinds in (("r", "rank_pattern", int), ("lora_alpha", "alpha_pattern", int | float)):
        own = stored.get(pattern)
        values = [stored.get(name, 1), *(own.values() if isinstance(own, dict) else ())]
        if not all(isinstance(value, kinds) and abs(value) < 1 << 31 for value in values):
            yield f"{name} or an entry of {pattern} is no number below 2³¹"
        elif name == "r" and min(values) < 1:
            yield "r or an entry of rank_pattern is less than 1"


def _changes(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Groups adapter keys by the parameter they change; a key of unknown form is kept under its own name."""
    changes: dict[str, dict[str, str]] = defaultdict(dict)
    for key in keys:
        ending = next((ending for ending in PARTS if key.endswith(f".{ending}")), "")
        parameter, part = PARTS.get(ending, ("", "unknown"))
        name = key.removeprefix(PREFIX).removesuffix(ending) + parameter
        if not ending or not key.startswith(PREFIX) or part in changes[name]:
            name, part = key, "unknown"
        changes[name][part] = key
    return {name: parts for name, parts in changes.items() if parts}


def _by_layer(faults: Mapping[str, str]) -> list[str]:
    """Faults as sentences; one that many layers share is a single sentence with their numbers in braces."""
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
