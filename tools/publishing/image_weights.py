"""Base, adapter or prepared weights as a boot on Replicate would find them: in the image, or on the hub.

There no HF_TOKEN reaches `setup()`, so the hub is asked without one, for what `setup()` would ask.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import disable_progress_bars
from transformers import Qwen2Config

from snb.errors import PreparedMismatch, SNBError, WeightsMissing
from snb.settings import Settings
from snb.weights import fetch, prepared
from snb.weights.checkpoint import INDEX, REQUIRED, description_faults, read_config, shards
from snb.weights.fetch import PINS, Source
from snb.weights.lock import NAME, Lock
from snb.weights.prepared import Card
from tools.publishing.build_context import BuildContext
from tools.publishing.finding import Finding

BAKE = "Run scripts/download-weights with HF_TOKEN set, so that it goes with the image"
SECONDS = 30


@dataclass(frozen=True)
class Held:
    """One source, as the image will find it."""

    finding: Finding
    names: frozenset[str] = frozenset()
    """Its files in the build context; none when it is not in the image."""
    download: int = 0
    """Bytes that a boot fetches from the hub."""
    config: Qwen2Config | None = None
    """Of a base or of prepared weights, where it could be read."""
    precision: str | None = None
    """That prepared weights are held in."""


def survey(settings: Settings, context: BuildContext) -> Iterator[Held]:
    """Looks at every source that a boot reads; hashes what is in the image and has a lock."""
    source = prepared.named(settings)
    for one in [source] if source else fetch.sources(settings):
        # The same look as a boot's: a folder, or a download whose lock says that it was whole.
        folder = one.folder or fetch.stored(one, settings.weights_dir)
        if folder and (sent := context.inside(folder)):
            yield _in_the_image(one, folder, sent, settings, context)
        else:
            yield _on_the_hub(one, "is here and not sent with the image" if folder else "is not here")


def _in_the_image(
    source: Source, folder: Path, sent: dict[str, str], settings: Settings, context: BuildContext
) -> Held:
    """Verified here, and compared with what is sent."""
    shown, names = f"{source.role} in {folder.relative_to(context.root)}", frozenset(sent.values())
    is_prepared = source.role == "prepared"
    try:
        needed = _needed(folder, source)
        prepared.find(settings, download=False) if is_prepared else fetch.check(source, settings)
        config = None if source.role == "adapter" else read_config(folder)
        precision = Card.read(folder).precision if is_prepared else None
    except SNBError as failure:
        code = "WEIGHTS_MISMATCH" if isinstance(failure, PreparedMismatch) else "WEIGHTS_DAMAGED"
        return Held(Finding("error", code, f"{shown}: {'; '.join(failure.faults)}", failure.cure), names)
    if absent := sorted(needed - sent.keys()):
        text = f"{shown}: {', '.join(absent)} would not be in the image"
        cure = "Look at .dockerignore, and put files in the place of links"
        finding = Finding("error", "WEIGHTS_INCOMPLETE", text, cure)
    else:
        size = sum(context.files[name] for name in names) / 1e9
        finding = Finding("ok", "WEIGHTS", f"{shown}: whole, {size:.2f} GB of the image")
    return Held(finding, names, config=config, precision=precision)


def _needed(folder: Path, source: Source) -> set[str]:
    """The names that a boot reads. Raises WeightsMissing for an index that is none."""
    if lock := Lock.read(folder):
        return {*lock.files, NAME}
    index = {INDEX} if (folder / INDEX).exists() else set()
    return {*REQUIRED[source.role], *shards(folder, source.role), *index}


def _on_the_hub(source: Source, where: str) -> Held:
    """Asks without a token for what `setup()` would read before it moves gigabytes."""
    name = f"{source.role} {source.name}"
    if not source.fetchable:
        cure = "Send it, or name another in `environment:` of cog.yaml, or SNB_PREPARED=none"
        text = f"{name} {where}, and no hub repository is called so"
        return Held(Finding("error", "WEIGHTS_ABSENT", text, cure))
    try:
        return _published(source, where)
    except RevisionNotFoundError:
        cure = "Check SNB_BASE_REVISION, SNB_ADAPTER_REVISION and SNB_PREPARED_REVISION"
        text = f"{name} {where}, and the hub has no revision {source.revision} of it"
        return Held(Finding("error", "WEIGHTS_ABSENT", text, cure))
    except RepositoryNotFoundError:  # a gated one too
        text = f"{name} {where}, and is private on the hub: setup() on Replicate has no HF_TOKEN"
        return Held(Finding("error", "WEIGHTS_PRIVATE", text, f"{BAKE}; or check the name"))
    except SNBError as failure:
        text = f"{name} {where}, and cannot be served: {'; '.join(failure.faults)}"
        return Held(Finding("error", "WEIGHTS_UNUSABLE", text, "Name another repository"))
    except (OSError, httpx2.HTTPError, ValueError) as failure:
        text = f"{name} {where}, and the hub did not answer: {type(failure).__name__}"
        cure = f"{BAKE}, or look again where the hub can be reached"
        return Held(Finding("not checked", "WEIGHTS_UNASKED", text, cure))


def _published(source: Source, where: str) -> Held:
    """From the small files: a gated repository lists them for everybody and hands out none."""
    disable_progress_bars()
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=False)
    info = hub.model_info(source.name, revision=source.revision, files_metadata=True, timeout=SECONDS)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    wanted = PINS[source.role]["files"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        hub.snapshot_download(source.name, revision=info.sha, allow_patterns=wanted, local_dir=folder)
        if faults := description_faults(folder, source.role, sizes.keys()):
            raise WeightsMissing(faults)
        size = sum(sizes[name] for name in shards(folder, source.role))
        text = f"{source.role} {source.name} {where}; it is public, and setup() downloads {size / 1e9:.2f} GB"
        config = None if source.role == "adapter" else read_config(folder)
        precision = Card.read(folder).precision if source.role == "prepared" else None
    return Held(Finding("ok", "WEIGHTS", text), download=size, config=config, precision=precision)
