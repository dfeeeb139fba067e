"""Base, adapter or prepared weights as a boot on Replicate would find them: in the image, or on the hub.

There no HF_TOKEN reaches `setup()`, so the hub is asked without one, for what `setup()` would ask.
"""

import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import is_offline_mode
from huggingface_hub.errors import RevisionNotFoundError
from transformers import Qwen2Config

from snb.card import Footprint
from snb.errors import DownloadFailed, PreparedMismatch, SNBError, WeightsMissing
from snb.settings import Settings
from snb.weights import fetch, prepared
from snb.weights.checkpoint import INDEX, REQUIRED, description_faults, read_config, shards
from snb.weights.fetch import PINS, Source
from snb.weights.hub import Hub, status
from snb.weights.lock import NAME, Lock
from snb.weights.prepared import Card
from tools.benchmarking.bounds import QWEN_14B
from tools.publishing.build_context import BuildContext
from tools.publishing.finding import Finding, error, ok, unchecked, warning

REFUSED = (401, 403, 404)
"""What the hub answers to somebody who may not know whether a repository exists."""
BAKE = "Run scripts/download-weights with HF_TOKEN set, so that it goes with the image"


@dataclass(frozen=True)
class Held:
    """One source, as the image will find it."""

    source: Source
    findings: tuple[Finding, ...]
    names: frozenset[str] = frozenset()
    """Its files in the build context; none when it is not in the image."""
    download: int = 0
    """Bytes that a boot fetches from the hub."""
    config: Qwen2Config | None = None
    """Of a base or of prepared weights, where it could be read."""
    precision: str | None = None
    """That prepared weights are held in."""


@dataclass(frozen=True)
class Survey:
    """All sources that a boot reads."""

    held: tuple[Held, ...]
    notes: tuple[Finding, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The files of the build context that a boot reads."""
        return frozenset().union(*(one.names for one in self.held))

    @property
    def findings(self) -> Iterator[Finding]:
        yield from self.notes
        for one in self.held:
            yield from one.findings


def survey(settings: Settings, context: BuildContext, hub: Hub) -> Survey:
    """Looks at every source; hashes what is in the image and has a lock. The hub must have no token."""
    notes: list[Finding] = []
    found = prepared.named(settings)
    if found and settings.prepared == "auto" and found.folder and not _sent(found.folder, context):
        cure = f"Take it out of {_ignore(context)} to boot from it, or set SNB_PREPARED=none"
        said = f"{_shown(found.folder, context)} is not in the image, so a boot merges base and adapter"
        notes.append(warning("WEIGHTS_LEFT_OUT", said, cure))
        settings = dataclasses.replace(settings, prepared="none")
        found = None
    sources = [found] if found else fetch.sources(settings)
    return Survey(tuple(_held(source, settings, context, hub) for source in sources), tuple(notes))


def _held(source: Source, settings: Settings, context: BuildContext, hub: Hub) -> Held:
    # The same look as a boot's: a folder, or a download whose lock says that it was whole.
    folder = source.folder or fetch.stored(source, settings.weights_dir)
    if folder is None:
        return _on_the_hub(source, "is not in the image", hub)
    sent = _sent(folder, context)
    if sent:
        return _in_the_image(source, folder, sent, settings, context)
    inside = folder.absolute().is_relative_to(context.root)
    reason = f"{_ignore(context)} leaves it out" if inside else "it lies outside the project"
    return _on_the_hub(source, f"is on this machine and not in the image: {reason}", hub)


def _in_the_image(
    source: Source, folder: Path, sent: dict[str, str], settings: Settings, context: BuildContext
) -> Held:
    """Verified here, and compared with what is sent."""
    shown = _shown(folder, context)
    names = frozenset(sent.values())
    card = None
    try:
        needed = _needed(folder, source)
        if source.role == "prepared":
            card = prepared.find(settings, download=False)
        else:
            fetch.check(source, settings)
        config = None if source.role == "adapter" else read_config(folder)
    except PreparedMismatch as failure:
        return Held(source, (error("WEIGHTS_MISMATCH", "; ".join(failure.faults), failure.cure),), names)
    except SNBError as failure:
        said = f"{source.role} in {shown}: {'; '.join(failure.faults)}"
        return Held(source, (error("WEIGHTS_DAMAGED", said, failure.cure),), names)
    if absent := sorted(needed - sent.keys()):
        said = f"{source.role}: {', '.join(absent)} of {shown} would not be in the image"
        cure = f"Look at {_ignore(context)}, and put files in the place of links"
        return Held(source, (error("WEIGHTS_INCOMPLETE", said, cure),), names, config=config)
    size = sum(context.files[name] for name in names)
    said = ok("WEIGHTS", f"{source.role}: {shown}, whole, in the image, {size / 1e9:.2f} GB")
    return Held(source, (said,), names, config=config, precision=card.card.precision if card else None)


def _on_the_hub(source: Source, why: str, hub: Hub) -> Held:
    """Reads without a token what `setup()` would read before it moves gigabytes."""
    name = f"{source.role} {source.name}"
    if not source.fetchable:
        said = f"{name} {why}, and no hub repository is called so"
        cure = "Put it into weights/, or name a repository, in `environment:` of cog.yaml"
        return Held(source, (error("WEIGHTS_ABSENT", said, cure),))
    if is_offline_mode():
        return _unknown(source, (_unasked(f"{name} {why}, and HF_HUB_OFFLINE is set"),))
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _described(source, why, hub, Path(folder))
    except DownloadFailed as failure:
        return _unknown(source, (_refused(name, why, failure),))
    except SNBError as failure:
        said = f"{name} {why}, and cannot be used: {'; '.join(failure.faults)}"
        return Held(source, (error("WEIGHTS_UNUSABLE", said, "Name another repository"),))


def _unknown(source: Source, findings: tuple[Finding, ...]) -> Held:
    """A source that nobody could look at. The pinned base is known all the same: its bytes are computed."""
    if source.name != PINS[source.role].get("repository") or source.role != "base":
        return Held(source, findings)
    return Held(source, findings, download=Footprint(QWEN_14B).weights("bf16"), config=QWEN_14B)


def _described(source: Source, why: str, hub: Hub, folder: Path) -> Held:
    """From the small files: a gated repository lists them for everybody and hands out none."""
    listing = hub.listing(source.name, source.revision)
    hub.fetch(listing, listing.files.keys() & set(PINS[source.role]["files"]), folder)
    if faults := description_faults(folder, source.role, listing.files.keys()):
        raise WeightsMissing(faults)
    size = sum(listing.files[name].size for name in shards(folder, source.role))
    card = Card.read(folder) if source.role == "prepared" else None
    config = None if source.role == "adapter" else read_config(folder)
    said = f"{source.role} {source.name} {why}; it is public, and setup() downloads {size / 1e9:.2f} GB"
    found = ok("WEIGHTS", said)
    return Held(source, (found,), download=size, config=config, precision=card.precision if card else None)


def _refused(name: str, why: str, failure: DownloadFailed) -> Finding:
    fault = "; ".join(failure.faults)
    if isinstance(failure.__cause__, RevisionNotFoundError):
        cure = "Check SNB_BASE_REVISION, SNB_ADAPTER_REVISION and SNB_PREPARED_REVISION"
        return error("WEIGHTS_ABSENT", f"{name} {why}: {fault}", cure)
    if status(failure) in REFUSED:
        said = (
            f"{name} is private on the hub and missing from the image: setup() on Replicate has no HF_TOKEN"
        )
        return error("WEIGHTS_PRIVATE", f"{said} (it {why}; {fault})", f"{BAKE}; or check the name")
    return _unasked(f"{name} {why}, and the hub could not be asked: {fault}")


def _unasked(said: str) -> Finding:
    return unchecked("WEIGHTS_UNASKED", said, f"{BAKE}, or look again where the hub can be reached")


def _needed(folder: Path, source: Source) -> set[str]:
    """The names that a boot reads. Raises WeightsMissing for an index that is none."""
    if lock := Lock.read(folder):
        return {*lock.files, NAME}
    names = {*REQUIRED[source.role], *shards(folder, source.role)}
    return names | ({INDEX} if (folder / INDEX).exists() else set())


def _sent(folder: Path, context: BuildContext) -> dict[str, str]:
    """The files of a folder that are sent: their names there, and in the context."""
    named = {path.name: context.name(path) for path in folder.iterdir() if path.is_file()}
    return {name: found for name, found in named.items() if found}


def _shown(folder: Path, context: BuildContext) -> str:
    """A folder without what is this machine's own."""
    inside = folder.absolute().is_relative_to(context.root)
    return folder.absolute().relative_to(context.root).as_posix() if inside else folder.name


def _ignore(context: BuildContext) -> str:
    return ".dockerignore" if (context.root / ".dockerignore").exists() else "the list of what is sent"
