"""Base model and adapter: finds, downloads and verifies the folder of each."""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import is_offline_mode
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import Qwen2Config

from snb.errors import DownloadFailed, WeightsMissing
from snb.settings import ROOT, Settings
from snb.weights import document
from snb.weights.adapter import Adapter
from snb.weights.checkpoint import Role, description_faults, inspect, read_config, shards
from snb.weights.hub import Hub
from snb.weights.lock import NAME, Lock, alone, strays, verify

logger = logging.getLogger(__name__)
PINS = document.read(ROOT / "weights" / "pins.json", "Run git checkout -- weights/pins.json")


@dataclass(frozen=True)
class Source:
    """A local folder, or a hub repository at a branch, a tag or a commit."""

    role: Role
    name: str
    revision: str

    @classmethod
    def of(cls, role: Role, name: str, revision: str | None) -> "Source":
        """Without a revision, takes the pinned one if the repository is the pinned one, else `main`."""
        pin = PINS[role]
        return cls(role, name, revision or (pin["revision"] if name == pin.get("repository") else "main"))

    @property
    def folder(self) -> Path | None:
        """The local folder, which is used as it is, or None for a repository."""
        path = Path(self.name).expanduser()
        return path if path.is_dir() else None

    @property
    def fetchable(self) -> bool:
        """Whether the name can be a repository's, `owner/name`, and is no folder's."""
        try:
            validate_repo_id(self.name)
        except HFValidationError:
            return False
        return "/" in self.name and self.folder is None


def sources(settings: Settings) -> list[Source]:
    """The adapter, unless it is `none`, then the base: what may be refused comes before what takes long."""
    base = Source.of("base", settings.base_model, settings.base_revision)
    if settings.adapter == "none":
        return [base]
    return [Source.of("adapter", settings.adapter, settings.adapter_revision), base]


def ensure_base(settings: Settings, hub: Hub | None = None) -> Path:
    """The base model's folder, verified, downloaded if need be. Raises as `ensure`."""
    return ensure(sources(settings)[-1], settings, hub)


def ensure_adapter(settings: Settings, hub: Hub | None = None) -> Path | None:
    """The adapter's folder, verified, downloaded if need be; None for the base alone. Raises as `ensure`."""
    return None if settings.adapter == "none" else ensure(sources(settings)[0], settings, hub)


def ensure(
    source: Source,
    settings: Settings,
    hub: Hub | None = None,
    approve: Callable[[Path], object] = lambda folder: None,
) -> Path:
    """The verified folder of a source.

    A complete download is used without a request; otherwise one process downloads or repairs it.

    Args:
        source: the base, the adapter or prepared weights.
        settings: where it is kept and, for a base, the adapter that has to fit it.
        hub: where it is downloaded from.
        approve: called with the folder once the small files are there; it may refuse before the large ones.

    Raises:
        SNBError: whatever `approve` raises.
        AdapterUnsupported: the adapter is of a kind that cannot be merged.
        AdapterMismatch: an adapter that is here already does not fit the base.
        WeightsMissing: the source is unusable, or is not there and HF_HUB_OFFLINE is set.
        DownloadFailed: the hub refused or did not answer, or the disk is too small.
        BadSetting: HF_TOKEN cannot be a token.
    """
    try:
        return check(source, settings)
    except WeightsMissing as missing:
        if not source.fetchable:
            raise
        if is_offline_mode():
            cure = "HF_HUB_OFFLINE forbids to download: run scripts/download-weights without it"
            raise WeightsMissing(missing.faults, cure) from missing
        logger.info("Downloading: %s", "; ".join(missing.faults))
    hub = hub or Hub(settings.hf_token)
    try:
        with alone(settings.weights_dir / f"{_stem(source.name)}.lock") as waited:
            if waited:
                with suppress(WeightsMissing):
                    return check(source, settings)
            return _download(source, settings, hub, approve)
    except OSError as error:
        fault = f"{settings.weights_dir} cannot be written: {error.strerror or type(error).__name__}"
        raise DownloadFailed(fault, "Set SNB_WEIGHTS_DIR to a folder that can") from error


def check(source: Source, settings: Settings) -> Path:
    """Verifies what is there and downloads nothing.

    Raises:
        WeightsMissing: with every fault of the folder, or because there is none.
    """
    if source.folder:
        locked = verify(source.folder) if (source.folder / NAME).exists() else None
        inspect(source.folder, source.role, locked)
        return source.folder
    if not source.fetchable:
        raise WeightsMissing(
            f"{source.name} is neither a folder nor the name of a repository",
            "Name a folder that exists, or owner/name",
        )
    folder = stored(source, settings.weights_dir)
    if folder is None:
        raise WeightsMissing(
            f"{source.name} at {source.revision} is not in {settings.weights_dir}",
            "Run scripts/download-weights",
        )
    inspect(folder, source.role, verify(folder))
    return folder


def stored(source: Source, weights_dir: Path) -> Path | None:
    """The folder whose lock names this repository and revision (as asked for, or as a commit), or None."""
    for path in sorted(weights_dir.glob(f"{_stem(source.name)}@*/{NAME}")):
        lock = Lock.read(path.parent)
        if lock and lock.repository == source.name and source.revision in (lock.revision, lock.commit):
            return path.parent
    return None


def _download(source: Source, settings: Settings, hub: Hub, approve: Callable[[Path], object]) -> Path:
    """Downloads the small files first: they may rule out a repository before gigabytes are transferred."""
    present = stored(source, settings.weights_dir)
    damaged = Lock.read(present) if present else None
    listing = hub.listing(source.name, damaged.commit if damaged else source.revision)
    folder = settings.weights_dir / f"{_stem(source.name)}@{listing.commit[:12]}"
    described = listing.files.keys() & set(PINS[source.role]["files"])
    entries = hub.fetch(listing, described, folder)
    if faults := description_faults(folder, source.role, listing.files.keys()):
        raise WeightsMissing(faults, f"{source.name} at {listing.commit} cannot be served; name another")
    approve(folder)
    if source.role == "base":
        fit(settings, read_config(folder))
    entries |= hub.fetch(listing, shards(folder, source.role), folder)
    inspect(folder, source.role, set(entries))
    if unwanted := strays(folder, entries):
        raise WeightsMissing(unwanted, f"Leave nothing else in {folder}")
    Lock(source.name, source.revision, listing.commit, entries).write(folder)
    return folder


def fit(settings: Settings, base: Qwen2Config) -> None:
    """Checks an adapter that is here already against the configuration of a base; see Adapter.fitted."""
    source = sources(settings)[0]
    folder = source.folder or stored(source, settings.weights_dir)
    if source.role == "adapter" and folder:
        Adapter.read(folder).fitted(base)


def _stem(repository: str) -> str:
    return repository.replace("/", "--")
