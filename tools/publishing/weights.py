"""Base, adapter or prepared weights as a boot on Replicate would find them: in the image, or on the hub.

On Replicate no HF_TOKEN reaches `setup()`, so the hub is asked here without one too.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.utils import disable_progress_bars
from transformers import Qwen2Config

from snb.errors import DownloadFailed, PreparedMismatch, SNBError, WeightsMissing
from snb.settings import Settings
from snb.weights import fetch, prepared
from snb.weights.checkpoint import PICKLES, description_faults, read_config, shards
from snb.weights.fetch import PINS, Source
from snb.weights.hub import Hub, status
from snb.weights.prepared import Card
from tools.publishing.build_context import BuildContext
from tools.publishing.finding import Finding

ROLES = {"base": "SNB_BASE_MODEL", "adapter": "SNB_ADAPTER", "prepared": "SNB_PREPARED"}
NAME_ANOTHER = "Name another in `environment:` of cog.yaml, as SNB_BASE_MODEL=owner/name or SNB_ADAPTER=…"
BAKE = "If it is private, scripts/download-weights with HF_TOKEN set puts it into the image"


@dataclass(frozen=True)
class Held:
    """One source of weights, as the image will find it."""

    finding: Finding
    names: frozenset[str] = frozenset()
    """Paths of its files in the build context; none if it is not in the image."""
    download: int = 0
    """Bytes that a boot fetches from the hub."""
    config: Qwen2Config | None = None
    """Configuration of a base or of prepared weights, if it could be read."""
    precision: str | None = None
    """Precision of prepared weights."""


def survey(settings: Settings, context: BuildContext) -> Iterator[Held]:
    """Looks at every source that a boot reads; hashes what is in the image and has a lock."""
    source = prepared.named(settings)
    for one in [source] if source else fetch.sources(settings):
        # As a boot does: a folder, or a download whose lock says that it is whole.
        folder = one.folder or fetch.stored(one, settings.weights_dir)
        if folder and (sent := context.inside(folder)):
            yield _in_the_image(one, folder, sent, settings, context)
        else:
            name = f"{one.role} {one.name} is {'here and not sent with the image' if folder else 'not here'}"
            yield _on_the_hub(one, name)


def _in_the_image(
    source: Source, folder: Path, sent: dict[str, str], settings: Settings, context: BuildContext
) -> Held:
    """A source that is sent: verified here, and compared with what is sent."""
    shown, names = f"{source.role} in {folder.relative_to(context.root)}", frozenset(sent.values())
    try:
        if source.role == "prepared":
            prepared.find(settings, download=False)
        else:
            fetch.check(source, settings)
        described = _described(source, folder)
    except SNBError as failure:
        code = "WEIGHTS_MISMATCH" if isinstance(failure, PreparedMismatch) else "WEIGHTS_DAMAGED"
        cure = f"{failure.cure}: write {ROLES[source.role]}=owner/name into `environment:` of cog.yaml"
        return Held(Finding("error", code, f"{shown}: {'; '.join(failure.faults)}", cure), names)
    size = sum(context.files[name] for name in names) / 1e9
    finding = Finding("ok", "WEIGHTS", f"{shown}: whole, {size:.2f} GB of the image")
    files = {path.name for path in folder.iterdir() if path.is_file() and path.suffix not in PICKLES}
    if absent := sorted(files - sent.keys()):
        text = f"{shown}: {', '.join(absent)} would not be in the image"
        cure = "Run echo '!weights/**' >> .dockerignore, and put files in the place of links"
        finding = Finding("error", "WEIGHTS_INCOMPLETE", text, cure)
    return Held(finding, names, **described)


def _on_the_hub(source: Source, name: str) -> Held:
    """A source that is not sent: asks, without a token, for what `setup()` reads before the large files."""
    if not source.fetchable:
        cure = f"{NAME_ANOTHER}, or SNB_PREPARED=none"
        return Held(Finding("error", "WEIGHTS_ABSENT", f"{name}, and no hub repository is called so", cure))
    try:
        return _published(source, name)
    except DownloadFailed as failure:
        fault = f"{name}, and setup() cannot fetch it without HF_TOKEN: {'; '.join(failure.faults)}"
        codes = {401: "WEIGHTS_PRIVATE", 403: "WEIGHTS_PRIVATE", 404: "WEIGHTS_ABSENT"}
        if code := codes.get(status(failure) or 0):
            return Held(Finding("error", code, fault, f"Check name and revision in cog.yaml. {BAKE}"))
        cure = "Run scripts/doctor again where the hub answers"
        return Held(Finding("not checked", "WEIGHTS_UNASKED", fault, cure))
    except SNBError as failure:
        fault = f"{name}, and cannot be served: {'; '.join(failure.faults)}"
        return Held(Finding("error", "WEIGHTS_UNUSABLE", fault, NAME_ANOTHER))


def _published(source: Source, name: str) -> Held:
    """A public repository, by its small files: a gated one lists them for everybody and hands out none."""
    disable_progress_bars()
    hub = Hub(endpoint=os.environ.get("HF_ENDPOINT"), sleep=time.sleep)
    listing = hub.listing(source.name, source.revision)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        hub.fetch(listing, listing.files.keys() & {*PINS[source.role]["files"]}, folder)
        if faults := description_faults(folder, source.role, listing.files.keys()):
            raise WeightsMissing(faults)
        size = sum(listing.files[shard].size for shard in shards(folder, source.role))
        text = f"{name}; it is public, and setup() downloads {size / 1e9:.2f} GB"
        return Held(Finding("ok", "WEIGHTS", text), download=size, **_described(source, folder))


def _described(source: Source, folder: Path) -> dict[str, Any]:
    if source.role == "adapter":
        return {}
    precision = Card.read(folder).precision if source.role == "prepared" else None
    return {"config": read_config(folder), "precision": precision}
