"""Base and adapter, merged and quantised shard by shard into a folder that a boot only has to read.

Each tensor goes through what the loader would do to it: cast, merged in fp32, rounded once, quantised by the
module of bitsandbytes that will hold it. In memory there are one shard of what is written and the work on one
tensor. The folder is built aside as `NAME.part`, whose lock grows with each whole shard, and takes its name
at the end; a run that was interrupted goes on after its last shard.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.quantizers import AutoHfQuantizer

from snb.card import FLOATS, Device, Footprint, quantization
from snb.errors import DiskFull, WeightsMissing
from snb.settings import Settings
from snb.weights.adapter import EMBEDDING, HEAD, Adapter
from snb.weights.checkpoint import CARD, INDEX, read_config, shards
from snb.weights.fetch import PINS, ensure_adapter, ensure_base, sources
from snb.weights.hub import MARGIN, free_bytes
from snb.weights.lock import NAME, Entry, Lock, digests, verify
from snb.weights.merge import TRIM_EVERY, give_back_freed_memory, unties
from snb.weights.prepared import Card, Origin, Quality, tools
from tools.command import say
from tools.preparing.check_quality import compare
from tools.preparing.quality import NAME as TEXTS

CAST = {"nf4": "bf16", "int8": "fp16", "bf16": "bf16"}
"""What a tensor is cast to before the merge, and what is not quantised is written in. A boot that merges
takes the same, but for nf4 on a GPU without bf16, where it takes fp16."""
LOCKED = "prepared"
"""What the lock of such a folder names as its repository."""


@dataclass(frozen=True)
class Recipe:
    """What is to be made, of what."""

    base: Path
    adapter: Adapter | None
    config: Qwen2Config
    """Of the base, untied where the adapter wants that."""
    untied: bool
    card: Card

    @classmethod
    def of(cls, settings: Settings, precision: str) -> "Recipe":
        """Finds and checks base and adapter, downloading what is absent. Raises as a boot would."""
        folders = {"adapter": ensure_adapter(settings), "base": ensure_base(settings)}
        origins = {
            source.role: Origin.of(source, folder)
            for source in sources(settings)
            if (folder := folders[source.role])
        }
        base, adapter_folder = folders["base"], folders["adapter"]
        assert base
        config, adapter = read_config(base), Adapter.read(adapter_folder) if adapter_folder else None
        if adapter:
            adapter = adapter.fitted(config)
        untied = bool(adapter and unties(adapter, config))
        config.tie_word_embeddings = bool(config.tie_word_embeddings) and not untied
        device = Device.find(settings.device).kind
        card = Card(precision, origins["base"], origins.get("adapter"), tools(), device)
        return cls(base, adapter, config, untied, card)


def prepare(recipe: Recipe, output: Path, free: Callable[[Path], int] = free_bytes) -> None:
    """Makes the folder, or what is not there of it; leaves it alone when it is whole and of this recipe.

    Raises:
        WeightsMissing: the base does not hold the weights that its config describes.
        DiskFull: what is left to write, with a margin, does not fit.
    """
    draft = output.with_name(f"{output.name}.part")
    if not _of(recipe, draft):
        shutil.rmtree(draft, ignore_errors=True)
    if _of(recipe, output) and not draft.exists():
        try:
            verify(output)
        except WeightsMissing as damage:
            say(f"mending {output}: {'; '.join(damage.faults)}")
            output.rename(draft)
        else:
            say(f"{output} is whole already")
            return
    draft.mkdir(parents=True, exist_ok=True)
    files = _write_shards(recipe, draft, free)
    _describe(recipe, draft, files)
    shutil.rmtree(output, ignore_errors=True)
    draft.rename(output)


def measure(folder: Path) -> None:
    """Compares a whole folder with the merged model of the same settings, and writes it on the card.

    Raises:
        Failed: the merged model, in fp32 on a CPU and in 16 bits on a GPU, does not fit this machine.
    """
    card, lock = Card.read(folder), Lock.read(folder)
    assert lock
    device = Device.find(Settings.from_environment().device)
    reference = "fp32" if device.kind == "cpu" else device.half
    say(f"comparing with the merged model in {reference} …")
    # The device is named because a large model runs on a CPU only when told to.
    _, figures = compare(reference, str(folder), {"SNB_DEVICE": device.kind})
    shown = figures["mean_divergence"], figures["same_choice"]
    quality = Quality(TEXTS, figures["tokens"], reference, device.name, *shown)
    replace(card, quality=quality).write(folder)
    replace(lock, files={**lock.files, CARD: _entry(folder / CARD)}).write(folder)
    say(f"quality: {quality}")


def _write_shards(recipe: Recipe, draft: Path, free: Callable[[Path], int]) -> dict[str, Entry]:
    """One shard for each of the base, in its order; the lock is written after every one."""
    sources = sorted(shards(recipe.base, "base"))
    names = {f"model-{n:05}-of-{len(sources):05}.safetensors": s for n, s in enumerate(sources, 1)}
    _require_all(recipe, sources)
    files = _whole(recipe, draft, names)
    _require_room(recipe, draft, sum(entry.size for entry in files.values()), free(draft))
    making, began = Making(recipe), time.monotonic()
    for number, (name, source) in enumerate(names.items(), 1):
        if name not in files:
            part = draft / f"{name}.part"
            save_file(dict(making.tensors(recipe.base / source)), part, {"format": "pt"})
            os.replace(part, draft / name)
            files[name] = _entry(draft / name)
            _lock(recipe, files).write(draft)
        done = sum(entry.size for entry in files.values())
        say(f"{number} of {len(names)} shards, {done / 1e9:.2f} GB, {time.monotonic() - began:.0f} s")
    return files


class Making:
    """Turns tensors of the base into what is stored of them.

    The model is on the meta device: it has the modules that will hold each weight, and no weights.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.dtype = FLOATS[CAST[recipe.card.precision]]
        with torch.device("meta"):
            self.model = Qwen2ForCausalLM(recipe.config).to(self.dtype)
        config = quantization(recipe.card.precision, self.dtype)
        self.quantizer = AutoHfQuantizer.from_config(config, pre_quantized=False) if config else None
        if self.quantizer:
            self.quantizer.preprocess_model(self.model, dtype=self.dtype, device_map={"": recipe.card.device})

    def tensors(self, shard: Path) -> Iterator[tuple[str, Tensor]]:
        """The name and value of each stored tensor that a shard of the base gives."""
        with safe_open(shard, framework="pt") as file:
            for number, name in enumerate(sorted(file.keys()), 1):
                weight = file.get_tensor(name).to(self.recipe.card.device, self.dtype)
                for own in self._names(name):
                    merged = self.recipe.adapter.apply(own, weight) if self.recipe.adapter else weight
                    yield from self._stored(own, merged)
                if number % TRIM_EVERY == 0:
                    give_back_freed_memory()

    def _names(self, name: str) -> list[str]:
        """An embedding that is untied gives the output embedding too; one that stays tied is stored once."""
        if name == HEAD and self.recipe.config.tie_word_embeddings:
            return []
        untied = name == EMBEDDING and self.recipe.untied
        return [EMBEDDING, HEAD] if untied else [name]

    def _stored(self, name: str, merged: Tensor) -> Iterator[tuple[str, Tensor]]:
        if not self.quantizer or not self.quantizer.param_needs_quantization(self.model, name):
            yield name, merged.contiguous().cpu()
            return
        steps = self.quantizer.get_quantize_ops()
        module = self.model.get_submodule(name.rpartition(".")[0])
        empty = module.weight
        module.weight = steps.convert({name: [merged]}, full_layer_name=name, model=self.model)[name]
        state = module.state_dict(prefix=name.removesuffix("weight"))
        module.weight = empty
        yield from ((key, value.cpu()) for key, value in state.items() if not value.is_meta)


def _describe(recipe: Recipe, draft: Path, files: dict[str, Entry]) -> None:
    """Everything but the shards, then the lock of all."""
    for name in set(PINS["base"]["files"]) - {INDEX, "config.json"}:
        if (recipe.base / name).exists():
            shutil.copyfile(recipe.base / name, draft / name)
    _write_json(draft / "config.json", _config(recipe))
    weight_map = {key: name for name in files for key in _keys(draft / name)}
    size = sum(entry.size for entry in files.values())
    _write_json(draft / INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})
    recipe.card.write(draft)
    files |= {path.name: _entry(path) for path in draft.iterdir() if path.suffix in (".json", ".jinja")}
    files.pop(NAME, None)
    _lock(recipe, files).write(draft)


def _config(recipe: Recipe) -> dict[str, Any]:
    """The base's own, with what was done to it."""
    config: dict[str, Any] = json.loads((recipe.base / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    dtype = FLOATS[CAST[recipe.card.precision]]
    config["dtype"] = str(dtype).removeprefix("torch.")
    config["tie_word_embeddings"] = recipe.config.tie_word_embeddings
    if quantized := quantization(recipe.card.precision, dtype):
        config["quantization_config"] = quantized.to_dict()
    return config


def _require_all(recipe: Recipe, sources: Sequence[str]) -> None:
    """Compares names and shapes of all shards with what the config describes."""
    with torch.device("meta"):
        needed = {name: tuple(p.shape) for name, p in Qwen2ForCausalLM(recipe.config).named_parameters()}
    found: dict[str, tuple[int, ...]] = {}
    for source in sources:
        with safe_open(recipe.base / source, framework="pt") as file:
            found |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    if EMBEDDING in found and (recipe.untied or recipe.config.tie_word_embeddings):
        found[HEAD] = found[EMBEDDING]
    if recipe.config.tie_word_embeddings:
        found.pop(HEAD, None)
    both = [name for name in sorted(needed.keys() & found.keys()) if found[name] != needed[name]]
    faults = [
        *(f"{name} is absent" for name in sorted(needed.keys() - found.keys())),
        *(f"{name} is not part of the model" for name in sorted(found.keys() - needed.keys())),
        *(f"{name} has shape {found[name]}, and config.json says {needed[name]}" for name in both),
    ]
    if faults:
        raise WeightsMissing(faults, "Download the base model again")


def _require_room(recipe: Recipe, draft: Path, written: int, free: int) -> None:
    """Compares what is left to write, computed, with the disk."""
    left = Footprint(recipe.config).weights(recipe.card.precision) - written
    if free < left + MARGIN:
        raise DiskFull(
            f"{left:,} bytes to write and a margin of {MARGIN:,} do not fit the {free:,} free at {draft}",
            "Free some, or take --output on a larger disk; what is written already is kept",
        )


def _whole(recipe: Recipe, draft: Path, names: Collection[str]) -> dict[str, Entry]:
    """The shards that an interrupted run of the same recipe has finished, by size and then by hash."""
    lock = _of(recipe, draft)
    kept = {name: entry for name, entry in lock.files.items() if name in names} if lock else {}
    sized = [n for n, e in kept.items() if (draft / n).is_file() and (draft / n).stat().st_size == e.size]
    found = zip(sized, digests(draft / name for name in sized), strict=True)
    return {name: kept[name] for name, sha256 in found if sha256 == kept[name].sha256}


def _of(recipe: Recipe, folder: Path) -> Lock | None:
    """The lock of a folder if it is of this recipe."""
    lock = Lock.read(folder)
    return lock if lock and lock.commit == recipe.card.recipe else None


def _lock(recipe: Recipe, files: Mapping[str, Entry]) -> Lock:
    return Lock(LOCKED, recipe.card.precision, recipe.card.recipe, dict(files))


def _entry(path: Path) -> Entry:
    return Entry(path.stat().st_size, digests([path])[0])


def _keys(shard: Path) -> list[str]:
    with safe_open(shard, framework="pt") as file:
        return list(file.keys())


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(f"{json.dumps(content, indent=2, ensure_ascii=False)}\n", encoding="utf-8")
