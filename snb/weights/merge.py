"""Loads a base model and merges the adapter into each weight while the checkpoint streams in."""

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM, conversion_mapping
from transformers.core_model_loading import ConversionOps, WeightConverter
from transformers.utils import logging

from snb.errors import AdapterMismatch, WeightsMissing
from snb.weights.adapter import EMBEDDING, HEAD, Adapter
from snb.weights.checkpoint import read_config, read_generation, shards

log = getLogger(__name__)

MODEL = Qwen2ForCausalLM.__name__
AGAIN = "Download the base model again"
TRIM_EVERY = 32
"""Weights between two trims of the heap; a trim makes the next allocations slower."""


def load_merged(folder: Path, adapter: Adapter | None, **options: Any) -> Qwen2ForCausalLM:
    """Loads a base model with the adapter merged into it, one tensor at a time, before any quantisation.

    The loader casts each weight to its dtype and moves it to its device; there it is merged in fp32, rounded
    once, and then quantised if asked. There is never a second copy of the model.

    Tied embeddings are untied when the adapter changes either of them: the model then has an `lm_head` of its
    own and `config.tie_word_embeddings` is False. That is what PEFT's model computes before any merge: a LoRA
    or a saved module belongs to one of the two, and a weight that replaces the base's own to both. (PEFT
    0.21's `merge_and_unload` unties for `modules_to_save` only, and adds a LoRA on one of the two to both.)

    Args:
        folder: config.json and safetensors of the base.
        adapter: what to merge; none loads the base alone.
        options: for `from_pretrained`: dtype, quantization_config, device_map, attn_implementation.

    Raises:
        AdapterMismatch: the adapter does not fit the base, or the base is quantised already.
        WeightsMissing: a file or a weight of the base is absent, damaged, unknown or misshapen.
    """
    config = read_config(folder)
    if adapter is None:
        return _load(folder, config, options)
    if getattr(config, "quantization_config", None) is not None:
        raise AdapterMismatch("the base is quantised already", "Merge into the full-precision base")
    adapter = adapter.fitted(config)
    untie = unties(adapter, config)
    if untie:
        log.info("the adapter changes tied embeddings: lm_head gets a weight of its own")
        config.tie_word_embeddings = False
    with merging(adapter, untie):
        model = _load(folder, config, options)
    # Kept, they would be reversed when the model is saved, and would keep the adapter's file open.
    del model._weight_conversions
    return model


def unties(adapter: Adapter, config: Qwen2Config) -> bool:
    """Whether the adapter changes one of two embeddings that the base ties."""
    return bool(config.tie_word_embeddings) and not adapter.changes.keys().isdisjoint({EMBEDDING, HEAD})


@contextmanager
def merging(adapter: Adapter, untie: bool = False) -> Iterator[None]:
    """Within it, `Qwen2ForCausalLM.from_pretrained` merges the adapter; afterwards the loader is restored.

    Args:
        adapter: what to merge, checked against the base already.
        untie: whether `lm_head` is to be made from the embedding of a checkpoint that ties them.

    Raises:
        AdapterMismatch: a part of the adapter was merged into no weight, or no weight was changed.
        Exception: whatever failed in the merge of a weight, as it was raised.
    """
    merge = Merge(adapter, untie)
    conversion_mapping.get_checkpoint_conversion_mapping(MODEL)  # the first look-up builds the registry
    registry = conversion_mapping._checkpoint_conversion_mapping_cache
    before = dict(registry), set(conversion_mapping.USER_REGISTERED_MAPPINGS)
    everything = WeightConverter(r"^(.+)$", r"\1", [merge])
    conversion_mapping.register_checkpoint_conversion_mapping(MODEL, [everything], overwrite=True)
    try:
        yield
    except _Interrupted as interrupted:
        raise interrupted.error from None
    finally:
        # transformers 5.23 cannot unregister a mapping: delete this when it can.
        for now, was in zip((registry, conversion_mapping.USER_REGISTERED_MAPPINGS), before, strict=True):
            now.clear()
            now.update(was)
    if merge.pending:
        raise AdapterMismatch([f"{name} was not merged" for name in sorted(merge.pending)])
    if not merge.effect:
        raise AdapterMismatch("the adapter changes nothing: each weight is as it was", "Name another adapter")


class Merge(ConversionOps):
    """The loader's step between reading a weight and quantising it.

    Attributes:
        pending: parameters that the adapter changes and that have not been loaded yet.
        effect: whether the adapter has changed any weight so far.
    """

    def __init__(self, adapter: Adapter, untie: bool) -> None:
        self.adapter = adapter
        self.untie = untie
        self.pending = set(adapter.changes)
        self.effect = False
        self.seen = 0

    def __deepcopy__(self, memo: object) -> "Merge":
        """Returns itself: the loader copies its steps for every weight, but adapter and counts are shared."""
        return self

    def convert(
        self,
        input_dict: dict[str, list[Tensor]],
        *,
        full_layer_name: str,
        model: Qwen2ForCausalLM,
        missing_keys: set[str],
        **unused: Any,
    ) -> dict[str, Tensor]:
        """Merges the weight that the loader passes in, and makes the untied `lm_head` from the embedding."""
        _, (weight,) = input_dict.popitem()
        names = [full_layer_name]
        if self.untie and full_layer_name == EMBEDDING and HEAD in missing_keys:
            names.append(HEAD)
        try:
            return {name: self._merged(name, weight, model) for name in names}
        except Exception as error:
            raise _Interrupted(error) from error
        finally:
            self.seen += 1
            if self.seen % TRIM_EVERY == 0:
                give_back_freed_memory()

    def _merged(self, name: str, weight: Tensor, model: Qwen2ForCausalLM) -> Tensor:
        shape = model.get_parameter_or_buffer(name).shape
        if weight.shape != shape:
            raise WeightsMissing(
                f"{name} has shape {tuple(weight.shape)}, and config.json says {tuple(shape)}", AGAIN
            )
        merged = self.adapter.apply(name, weight)
        if name in self.adapter.changes:
            self.pending.remove(name)
            self.effect = self.effect or not torch.equal(merged, weight)
        return merged


def give_back_freed_memory() -> None:
    """Returns freed pages of the heap to the system, where the C library can.

    glibc keeps freed memory that lies below its highest live block. On a CPU every quantised weight is such a
    block, above the temporaries of earlier ones: without this a load in nf4 peaked at three times the model
    (measured on the 135M stand-in).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class _Interrupted(BaseException):
    """Carries an error out of the loader: transformers 5.23 logs any `Exception` of a step and goes on."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _load(folder: Path, config: Qwen2Config, options: Mapping[str, Any]) -> Qwen2ForCausalLM:
    """Loads the tensors of `shards`, and nothing that transformers would find in the folder by itself.

    In a folder transformers 5.23 prefers model.safetensors to the shards of an index, and to both a file that
    config.json names as `transformers_weights`; and it adds an adapter that lies beside them.
    """
    try:
        with _no_report(), ExitStack() as stack:
            files = [
                stack.enter_context(safe_open(folder / name, framework="pt"))
                for name in sorted(shards(folder, "base"))
            ]
            model, info = Qwen2ForCausalLM.from_pretrained(
                None,
                config=config,
                generation_config=read_generation(folder),
                state_dict={name: file.get_slice(name) for file in files for name in sorted(file.keys())},
                ignore_mismatched_sizes=True,  # they are all refused here, together
                output_loading_info=True,
                **options,
            )
    except (OSError, SafetensorError) as error:
        raise WeightsMissing(f"a file of the base is absent or damaged: {error}", AGAIN) from error
    faults = [f"{name} is absent" for name in sorted(info["missing_keys"])]
    faults += [f"{name} is not part of the model" for name in sorted(info["unexpected_keys"])]
    faults += [
        f"{name} has shape {tuple(shape)}, and config.json says {tuple(needed)}"
        for name, shape, needed in sorted(info["mismatched_keys"])
    ]
    if faults:
        raise WeightsMissing(faults, AGAIN)
    return model


@contextmanager
def _no_report() -> Iterator[None]:
    """Silences the loader's own report, tracebacks included: every fault is raised here instead."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
