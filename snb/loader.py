"""From settings to a model on its device: weights found, precision chosen, adapter merged."""

import gc
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

from snb.adapter import Adapter
from snb.errors import WeightsMissing
from snb.merge import load_merged
from snb.precision import Choice, Device, budget, choose, quantization
from snb.settings import Settings
from snb.weights import ensure_adapter, ensure_base

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A model ready to decode, in eval mode on its device."""

    model: Qwen2ForCausalLM
    tokenizer: Tokenizer
    choice: Choice
    slots: int
    """Requests decoded at once: what the memory left after loading holds."""
    notice: str
    """What every output has to say of this model; empty for the real one."""


def load(settings: Settings) -> Loaded:
    """Downloads what is absent, verifies it, and loads it; nothing is offloaded to the CPU or a disk.

    Raises:
        SNBError: of the phase that failed; see `weights`, `precision`, `adapter` and `merge`.
    """
    with _phase("weights present and verified"):
        # The adapter first: a private one is refused in seconds, the base takes minutes.
        adapter_folder, base = ensure_adapter(settings), ensure_base(settings)
    config = _config(base)
    device = Device.find(settings.device)
    choice = choose(config, settings, device)
    with _phase(f"model loaded in {choice.precision}"):
        adapter = Adapter.read(adapter_folder) if adapter_folder else None
        model = load_merged(
            base,
            adapter,
            dtype=choice.compute_dtype,
            quantization_config=quantization(choice),
            device_map={"": device.kind},
            # fp16 with eager attention overflows to NaN on Qwen2; sdpa does not (transformers #33317).
            attn_implementation="sdpa",
        )
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    slots = budget(config, choice, settings.context, _left(settings))
    return Loaded(model.eval(), tokenizer, choice, slots, getattr(config, "snb_notice", ""))


def _left(settings: Settings) -> int:
    """Bytes that are free on the device, those included that loading used for a while."""
    gc.collect()
    torch.cuda.empty_cache()
    return Device.find(settings.device).free


def _config(base: Path) -> Qwen2Config:
    config = Qwen2Config.from_pretrained(base, local_files_only=True)
    if config.architectures != ["Qwen2ForCausalLM"]:
        raise WeightsMissing(f"the base is {config.architectures}", "Take a Qwen2ForCausalLM checkpoint")
    return config


@contextmanager
def _phase(name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    log.info("%s in %.1f s", name, time.monotonic() - started)
