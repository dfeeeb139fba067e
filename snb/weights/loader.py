"""Loads the model that the settings name: finds the weights, chooses the precision, merges the adapter."""

import gc
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import Qwen2ForCausalLM

from snb.card import Choice, Device, budget, choose
from snb.diagnosis import out_of_memory_named
from snb.errors import DeviceUnusable, OutOfMemory
from snb.phase import Seconds, phase
from snb.settings import Settings
from snb.weights import prepared
from snb.weights.adapter import Adapter
from snb.weights.checkpoint import read_config
from snb.weights.fetch import ensure_adapter, ensure_base
from snb.weights.merge import load_merged
from snb.weights.prepared import UNMEASURED, Prepared
from snb.weights.quantization import never_repacked, quantization

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A model ready to decode, in eval mode on its device."""

    model: Qwen2ForCausalLM
    tokenizer: Tokenizer
    choice: Choice
    slots: int
    """Requests decoded at once: as many as fit the memory left after loading."""
    notice: str
    """What every output must say about this model; empty for the real one."""
    seconds: Seconds = field(default_factory=dict)
    """Duration of the phases so far: `weights` (finding and verifying them) and `load`."""


def load(settings: Settings) -> Loaded:
    """Downloads what is absent, verifies it, and loads it; nothing is offloaded to the CPU or a disk.

    Raises:
        SNBError: what failed; see `fetch`, `prepared`, `adapter` and `merge` here, and `snb.card`.
    """
    seconds: Seconds = {}
    with phase("weights", seconds):
        merged = prepared.find(settings)
        if merged is None:
            # The adapter first: a private one is refused in seconds, the base takes minutes.
            adapter, base = ensure_adapter(settings), ensure_base(settings)
    with phase("load", seconds):
        loaded = load_prepared(merged, settings) if merged else _load_merging(base, adapter, settings)
    return replace(loaded, seconds=seconds)


def _load_merging(base: Path, adapter_folder: Path | None, settings: Settings) -> Loaded:
    log.info("weights: %s with adapter %s, merged now", settings.base_model, settings.adapter)
    choice = choose(read_config(base, settings.context), settings, Device.find(settings.device))
    with out_of_memory_named(f"loading in {choice.precision}, {choice.need}"):
        adapter = Adapter.read(adapter_folder) if adapter_folder else None
        config = quantization(choice.precision, choice.compute_dtype)
        model = load_merged(base, adapter, **_options(choice, settings), quantization_config=config)
    return _loaded(model, base, choice, settings)


def load_prepared(merged: Prepared, settings: Settings) -> Loaded:
    """Loads weights that are merged and quantised already, whatever base and adapter the settings name.

    Raises:
        SNBError: as `snb.card` raises, or as `merge` does if a weight is absent.
    """
    card = merged.card
    log.info("weights: prepared %s; quality: %s", card, card.quality or UNMEASURED)
    config = read_config(merged.folder, settings.context)
    try:
        choice = choose(config, replace(settings, precision=card.precision), Device.find(settings.device))
    except (DeviceUnusable, OutOfMemory) as failure:
        held = f"these weights are prepared in {card.precision}; for another precision: {prepared.CURE}"
        raise type(failure)(failure.faults, f"{failure.cure}; {held}") from failure
    with out_of_memory_named(f"loading in {choice.precision}, {choice.need}"):
        model = load_merged(merged.folder, None, **_options(choice, settings))
        _compute_in(model, choice.compute_dtype)
    return _loaded(model, merged.folder, choice, settings)


def _compute_in(model: Qwen2ForCausalLM, dtype: torch.dtype) -> None:
    """Sets the dtype of a quantised model: it is stored for bf16, and some GPUs compute in fp16.

    transformers 5.23 leaves norms and embeddings of a quantised checkpoint as they are stored, and the layers
    compute in what config.json says.
    """
    for layer in model.modules():
        if state := getattr(getattr(layer, "weight", None), "quant_state", None):  # of nf4
            layer.compute_dtype = state.dtype = dtype
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def _loaded(model: Qwen2ForCausalLM, folder: Path, choice: Choice, settings: Settings) -> Loaded:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    slots = budget(model.config, choice, settings.context, _left(settings))
    never_repacked(model)
    return Loaded(model.eval(), tokenizer, choice, slots, getattr(model.config, "snb_notice", ""))


def _options(choice: Choice, settings: Settings) -> dict[str, Any]:
    # fp16 with eager attention overflows to NaN on Qwen2; sdpa does not (transformers #33317).
    device_map = {"": Device.find(settings.device).kind}
    return {"dtype": choice.compute_dtype, "device_map": device_map, "attn_implementation": "sdpa"}


def _left(settings: Settings) -> int:
    """Free bytes on the device, after giving back what only loading used."""
    gc.collect()
    torch.cuda.empty_cache()
    return Device.find(settings.device).free
