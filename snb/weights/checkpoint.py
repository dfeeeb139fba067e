"""Checks a folder before anything is loaded from it: complete files, no code, a model that can be served."""

import json
from collections.abc import Set
from pathlib import Path
from typing import Any, Literal

from snb.errors import WeightsMissing
from snb.weights import adapter
from snb.weights.served import model_faults

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
