"""Weights that are here without a lock: no boot hashes a folder of them, nor takes them for a download."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from snb.errors import SNBError
from snb.settings import Settings
from snb.weights import fetch, prepared
from snb.weights.fetch import Source
from snb.weights.hub import Hub, right
from snb.weights.lock import Lock
from tools.publishing.finding import Finding
from tools.publishing.project import Project

CODE = "WEIGHTS_UNLOCKED"


def check(project: Project) -> Iterator[Finding]:
    """Hashes them by what the hub declares, where the name is a repository's."""
    settings = project.settings
    for source in [] if prepared.named(settings) else fetch.sources(settings):
        for folder in _folders(source, settings):
            name = os.path.relpath(folder, project.root)
            if Lock.read(folder) is None and any(folder.glob("*.safetensors")):
                yield _of_the_hub(source, folder, name) if source.fetchable else _of_nobody(source, name)


def _folders(source: Source, settings: Settings) -> list[Path]:
    stem = source.name.replace("/", "--")
    return [source.folder] if source.folder else sorted(settings.weights_dir.glob(f"{stem}@*"))


def _of_the_hub(source: Source, folder: Path, name: str) -> Finding:
    cure = "Run scripts/download-weights, which keeps the files that are right and writes the lock"
    try:
        hub = Hub(endpoint=os.environ.get("HF_ENDPOINT"), sleep=time.sleep)
        listing = hub.listing(source.name, source.revision)
    except SNBError as failure:
        text = f"{name} has no lock, and nobody tells its hashes: {'; '.join(failure.faults)}"
        return Finding("warning", CODE, text, cure)
    files = {file: listing.files[file] for file in listing.files if (folder / file).is_file()}
    if wrong := sorted(files.keys() - right(folder, files).keys()):
        text = f"{name} has no lock, and {', '.join(wrong)} are not what the hub declares"
        return Finding("error", CODE, text, cure)
    return Finding("warning", CODE, f"{name} has no lock, so a boot downloads it again", cure)


def _of_nobody(source: Source, name: str) -> Finding:
    text = f"{name} has no lock, so nothing tells whether its files are the ones that were meant"
    variable = f"SNB_{'BASE_MODEL' if source.role == 'base' else 'ADAPTER'}"
    cure = f"Name the repository: {variable}=owner/name in cog.yaml, and run scripts/download-weights"
    return Finding("warning", CODE, text, cure)
