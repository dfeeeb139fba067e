"""Base and adapter, merged and quantised shard by shard into a folder that a boot only has to read.

Each tensor is treated as the loader would treat it: cast, merged in fp32, rounded once, quantised for the
module that will hold it. Memory holds one shard of the output and the work on one tensor. The folder is built
as `NAME.part`, whose lock grows with each complete shard, and renamed at the end; an interrupted run resumes
after its last complete shard.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.quantizers import AutoHfQuantizer

from snb.card import Device, Footprint
from snb.errors import DiskFull, SNBError, WeightsMissing
from snb.settings import Settings
from snb.weights import document
from snb.weights.adapter import EMBEDDING, HEAD, Adapter
from snb.weights.checkpoint import CARD, INDEX, read_config, shards
from snb.weights.fetch import PINS, ensure, sources
from snb.weights.hub import MARGIN, RemoteFile, free_bytes, right
from snb.weights.lock import NAME, Entry, Lock, digests, verify
from snb.weights.merge import AGAIN, TRIM_EVERY, give_back_freed_memory, unties
from snb.weights.prepared import FOLDER, Card, Origin, Quality, tools
from snb.weights.quantization import quantization
from tools.command import say
from tools.preparing.quality import NAME as TEXTS
from tools.preparing.quality import compare

KINDS = ("nf4", "int8", "fp8", "bf16")
CAST = torch.bfloat16
"""Tensors are cast to this before the merge, and written in it if they are not quantised. A boot that merges
does the same, except on a GPU without bf16, where it takes fp16."""


class OutputTaken(SNBError):
    """The folder for prepared weights is a mount point, or holds something else, which would be deleted."""

    code = "OUTPUT_TAKEN"


@dataclass(frozen=True)
class Recipe:
    """What prepared weights are made from, and the card that will describe them."""

    base: Path
    adapter: Adapter | None
    config: Qwen2Config
    """Configuration of the base, with embeddings untied if the adapter needs that."""
    untied: bool
    card: Card

    @classmethod
    def of(cls, settings: Settings, precision: str) -> "Recipe":
        """Finds and checks base and adapter, and downloads what is absent. Raises what a boot would raise."""
        wanted = sources(settings)
        folders = {source.role: ensure(source, settings) for source in wanted}
        origins = {source.role: Origin.of(source, folders[source.role]) for source in wanted}
        config = read_config(folders["base"])
        adapter = Adapter.read(folders["adapter"]).fitted(config) if "adapter" in folders else None
        untied = bool(adapter and unties(adapter, config))
        config.tie_word_embeddings = bool(config.tie_word_embeddings) and not untied
        device = Device.find(settings.device).kind
        card = Card(precision, origins["base"], origins.get("adapter"), tools(), device)
        return cls(folders["base"], adapter, config, untied, card)

    def lock(self, folder: Path) -> Lock | None:
        """The lock of a folder that this recipe began; None for any other folder."""
        lock = Lock.read(folder)
        return lock if lock and lock.commit == self.card.recipe else None


def check_free(output: Path) -> None:
    """Raises OutputTaken if `output` is a mount point, or it or its draft holds anything not made here."""
    if output.is_mount():
        text = f"{output} is a mount point, whose place no folder can take"
        raise OutputTaken(text, f"Take --output {output / FOLDER}")
    # A draft has no lock until its first shard is complete.
    for folder, marks in ((output, (CARD,)), (draft_of(output), (NAME, "model-00001-of-*.safetensors.part"))):
        ours = any(any(folder.glob(mark)) for mark in marks)
        if folder.exists() and any(folder.iterdir()) and not ours:
            text = f"{folder} holds something else than prepared weights, which would be deleted"
            cure = f"Take a new folder, --output {output / FOLDER}, or move away what is there"
            raise OutputTaken(text, cure)


def draft_of(output: Path) -> Path:
    """The folder in which `output` is built, beside it."""
    return output.with_name(f"{output.name}.part")


def prepare(recipe: Recipe, output: Path) -> None:
    """Makes the folder, unless it is complete and of this recipe; resumes where an earlier run stopped.

    Raises:
        WeightsMissing: the base does not hold the weights that its config describes.
        DiskFull: what is left to write does not fit the disk with a margin.
    """
    if recipe.lock(output):
        with suppress(WeightsMissing):
            verify(output)
            say(f"{output} is whole already")
            return
    draft = draft_of(output)
    if not recipe.lock(draft):
        shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, exist_ok=True)
    lock = _write_shards(recipe, draft)
    _describe(recipe, draft, lock)
    shutil.rmtree(output, ignore_errors=True)
    draft.rename(output)


def measure(folder: Path) -> None:
    """Compares a complete folder with the merged model of the same settings; writes the result to its card.

    Raises:
        OutOfMemory: the merged model, in fp32 on a CPU or 16 bits on a GPU, does not fit this machine.
    """
    card, lock, settings = Card.read(folder), Lock.read(folder), Settings.from_environment()
    assert lock
    device = Device.find(settings.device)
    reference = "fp32" if device.kind == "cpu" else device.half
    say(f"comparing with the merged model in {reference} …")
    # The device is named explicitly, because `auto` does not run a large model on a CPU.
    shown = compare(reference, str(folder), replace(settings, device=device.kind))
    means = shown.mean_divergence, shown.same_choice
    quality = Quality(TEXTS, shown.tokens, reference, device.name, *means)
    replace(card, quality=quality).write(folder)
    lock.files[CARD] = _entry(folder / CARD)
    lock.write(folder)
    say(f"quality: {quality}")


def _write_shards(recipe: Recipe, draft: Path) -> Lock:
    """Writes one shard for each of the base, in the same order, and the lock after each; returns the lock."""
    sources = sorted(shards(recipe.base, "base"))
    names = {f"model-{n:05}-of-{len(sources):05}.safetensors": s for n, s in enumerate(sources, 1)}
    making, began, earlier = Making(recipe), time.monotonic(), recipe.lock(draft)
    stored = {own for source in sources for key in _keys(recipe.base / source) for own in making.names(key)}
    if faults := sorted(stored ^ making.parameters):
        raise WeightsMissing([f"{name} is absent or not part of the model" for name in faults], AGAIN)
    kept = {name: RemoteFile(e.size, e.sha256, "") for name, e in earlier.files.items()} if earlier else {}
    files = right(draft, {name: file for name, file in kept.items() if name in names})
    left = Footprint(recipe.config).weights(recipe.card.precision) - sum(e.size for e in files.values())
    if (free := free_bytes(draft)) < left + MARGIN:
        raise DiskFull(
            f"{left:,} bytes to write and a margin of {MARGIN:,} do not fit the {free:,} free at {draft}",
            "Free some to go on, or take --output DISK/prepared, a new folder on a larger disk",
        )
    lock = Lock("prepared", recipe.card.precision, recipe.card.recipe, files)
    for number, (name, source) in enumerate(names.items(), 1):
        if name not in files:
            part = draft / f"{name}.part"
            part.touch()
            mode = part.stat().st_mode
            save_file(dict(making.tensors(recipe.base / source)), part, {"format": "pt"})
            # safetensors 0.8.0 writes mode 0600, whatever the umask; in an image another user reads the file.
            part.chmod(mode)
            os.replace(part, draft / name)
            files[name] = _entry(draft / name)
            lock.write(draft)
        done = sum(entry.size for entry in files.values())
        say(f"{number} of {len(names)} shards, {done / 1e9:.2f} GB, {time.monotonic() - began:.0f} s")
    return lock


class Making:
    """Turns tensors of the base into the tensors that are stored.

    The model is on the meta device: it has the module for each weight, but no weights.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        with torch.device("meta"):
            self.model = Qwen2ForCausalLM(recipe.config).to(CAST)
        self.parameters = {name for name, _ in self.model.named_parameters()}
        config = quantization(recipe.card.precision, CAST)
        self.quantizer = AutoHfQuantizer.from_config(config, pre_quantized=False) if config else None
        if self.quantizer:
            where = {"": recipe.card.device}
            self.quantizer.preprocess_model(self.model, dtype=CAST, device_map=where)

    def names(self, name: str) -> list[str]:
        """Names of the tensors made from one of the base: two of an embedding that is untied here."""
        if name == HEAD and self.recipe.config.tie_word_embeddings:
            return []
        return [EMBEDDING, HEAD] if name == EMBEDDING and self.recipe.untied else [name]

    def tensors(self, shard: Path) -> Iterator[tuple[str, Tensor]]:
        """Name and value of each tensor that is stored for a shard of the base."""
        with safe_open(shard, framework="pt") as file:
            for number, name in enumerate(sorted(file.keys()), 1):
                weight = file.get_tensor(name).to(self.recipe.card.device, CAST)
                for own in self.names(name):
                    merged = self.recipe.adapter.apply(own, weight) if self.recipe.adapter else weight
                    yield from self._stored(own, merged)
                if number % TRIM_EVERY == 0:
                    give_back_freed_memory()

    def _stored(self, name: str, merged: Tensor) -> Iterator[tuple[str, Tensor]]:
        if not self.quantizer or not self.quantizer.param_needs_quantization(self.model, name):
            yield name, merged.contiguous().cpu()
            return
        steps = self.quantizer.get_quantize_ops()
        state = steps.convert({name: [merged]}, full_layer_name=name, model=self.model)
        if self.recipe.card.precision == "nf4":  # the module's state has what belongs to the weight
            module = self.model.get_submodule(name.rpartition(".")[0])
            empty, module.weight = module.weight, state[name]
            state = module.state_dict(prefix=name.removesuffix("weight"))
            module.weight = empty
        yield from ((key, value.cpu()) for key, value in state.items() if not value.is_meta)


def _describe(recipe: Recipe, draft: Path, lock: Lock) -> None:
    """Writes everything but the shards, then the lock of it all."""
    for name in {*PINS["base"]["files"]} - {INDEX, "config.json"}:
        if (recipe.base / name).exists():
            shutil.copyfile(recipe.base / name, draft / name)
    config: dict[str, Any] = document.read(recipe.base / "config.json")
    config.pop("torch_dtype", None)
    config["dtype"] = str(CAST).removeprefix("torch.")
    config["tie_word_embeddings"] = recipe.config.tie_word_embeddings
    if quantized := quantization(recipe.card.precision, CAST):
        config["quantization_config"] = quantized.to_dict()
    size = sum(entry.size for entry in lock.files.values())
    weight_map = {key: name for name in lock.files for key in _keys(draft / name)}
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    for name, content in (("config.json", config), (INDEX, index)):
        (draft / name).write_text(f"{json.dumps(content, indent=2, ensure_ascii=False)}\n", encoding="utf-8")
    recipe.card.write(draft)
    described = {path for path in draft.iterdir() if path.suffix in (".json", ".jinja")} - {draft / NAME}
    lock.files.update({path.name: _entry(path) for path in described})
    lock.write(draft)


def _entry(path: Path) -> Entry:
    return Entry(path.stat().st_size, digests([path])[0])


def _keys(shard: Path) -> list[str]:
    with safe_open(shard, framework="pt") as file:
        return list(file.keys())
