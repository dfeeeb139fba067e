"""Prepared weights, merged and quantised once so that a boot only reads them: their card and its checks."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from snb.errors import PreparedMismatch, WeightsMissing
from snb.settings import PRECISIONS, ROOT, Settings
from snb.weights import document
from snb.weights.checkpoint import CARD, Role, inspect, shards
from snb.weights.fetch import Source, check, ensure, sources
from snb.weights.hub import Hub
from snb.weights.lock import Lock, verify

FORMAT = 2
"""Version of the folder's format, raised when the previous version of this package could not load it. In
format 1, bitsandbytes held int8; nothing else differs."""
FOLDER = "prepared"
"""Its default name in the weights' folder, or in the image's."""
UNMEASURED = "not measured"
TOOLS = ("torch", "transformers", "peft", "bitsandbytes")
START: dict[Role, int] = {"base": 1 << 22, "adapter": -1}
"""Bytes of each file that a fingerprint reads; -1 reads all of it. Weights are prepared so that a boot need
not read the 29 GB of a base, so only its headers and first weights are compared."""
CURE = "Run scripts/prepare-weights again, or set SNB_PREPARED=none to merge base and adapter at boot"


@dataclass(frozen=True)
class Origin:
    """The base or the adapter that was merged."""

    name: str
    """The repository, or the name of a local folder without its path, which depends on the machine."""
    revision: str
    """The branch, tag or commit that was asked for; empty for a folder."""
    commit: str
    """The commit that it stood for at the time; empty for a folder."""
    sha256: str
    """See `fingerprint`."""

    @classmethod
    def of(cls, source: Source, folder: Path) -> "Origin":
        """Describes a source by its verified folder."""
        sha256 = fingerprint(folder, source.role)
        lock = None if source.folder else Lock.read(folder)
        if lock is None:
            return cls(Path(source.name).expanduser().resolve().name, "", "", sha256)
        return cls(source.name, source.revision, lock.commit, sha256)

    def is_of(self, source: Source) -> bool:
        """Whether a source is the same: a local folder is compared by content, anything else by name.

        A folder that is named like a repository is not taken for it, since any folder can have that name.
        """
        if source.folder:
            return fingerprint(source.folder, source.role) == self.sha256
        if source.fetchable:
            return source.name == self.name and source.revision in (self.revision, self.commit)
        return not self.commit and Path(source.name).name == self.name

    def __str__(self) -> str:
        return f"{self.name}@{self.commit[:12]}" if self.commit else f"the folder {self.name}"


def fingerprint(folder: Path, role: Role) -> str:
    """A sha256 of the names, sizes and beginnings of files, which tells two bases or two adapters apart."""
    described = ("adapter_config.json",) if role == "adapter" else ("config.json", "tokenizer.json")
    total = hashlib.sha256()
    for name in sorted({*described, *shards(folder, role)}):
        if not (folder / name).is_file():
            raise WeightsMissing(f"{folder / name} is absent", "Name a whole folder, or a hub repository")
        with (folder / name).open("rb") as file:
            start = hashlib.sha256(file.read(START[role]))
        total.update(f"{name} {(folder / name).stat().st_size} {start.hexdigest()}\n".encode())
    return total.hexdigest()


@dataclass(frozen=True)
class Quality:
    """How far prepared weights are from the merged model before quantisation, by teacher forcing."""

    texts: str
    """The set of texts: its name and the first digits of its sha256."""
    tokens: int
    """How many next-token distributions were compared; both figures below are means over them."""
    reference: str
    """Precision of the merged model."""
    device: str
    divergence: float
    """Kullback-Leibler divergence D(reference ‖ prepared weights), in nats."""
    same_choice: float
    """Share of tokens at which both find the same token likeliest."""

    def __str__(self) -> str:
        return (
            f"{self.divergence:.4f} nats from {self.reference}, the same likeliest token at "
            f"{self.same_choice:.1%} of {self.tokens} ({self.texts}, {self.device})"
        )


@dataclass(frozen=True)
class Card:
    """The description that a folder of prepared weights carries."""

    precision: str
    base: Origin
    adapter: Origin | None
    tools: Mapping[str, str]
    """Versions of the libraries that merged and quantised."""
    device: str
    """Where the weights were quantised, `cuda` or `cpu`, whose kernels may round differently."""
    quality: Quality | None = None
    """None if it was not measured."""
    format: int = FORMAT

    @classmethod
    def read(cls, folder: Path) -> "Card":
        """The card of a folder.

        Raises:
            WeightsMissing: there is none, or it is damaged.
            PreparedMismatch: its format is newer than this version reads, or it is int8 in format 1.
        """
        try:
            stored = document.read(folder / CARD)
            newer = stored["format"] > FORMAT
            if not newer:
                if stored["quality"] == UNMEASURED:
                    stored["quality"] = None
                for name, kind in (("base", Origin), ("adapter", Origin), ("quality", Quality)):
                    stored[name] = None if stored[name] is None else kind(**stored[name])
                card = cls(**stored)
                if card.precision not in PRECISIONS or not f"{card} {card.quality}":
                    raise ValueError("of a kind that nothing can be made of")
        except (WeightsMissing, ValueError, TypeError, LookupError) as error:
            raise WeightsMissing(f"{folder} has no readable {CARD}", CURE) from error
        if newer:
            raise PreparedMismatch(
                f"{folder} has format {stored['format']}, and this version reads up to {FORMAT}",
                "Update this package, or run its own scripts/prepare-weights",
            )
        if card.precision == "int8" and card.format < 2:
            raise PreparedMismatch(
                f"{folder} holds int8 in the format of bitsandbytes, which is read no more",
                "Run scripts/prepare-weights --precision int8 again, or set SNB_PREPARED=none",
            )
        return card

    def write(self, folder: Path) -> None:
        """Writes the card for people to read too: indented, and with 'not measured' where that is so."""
        content = {**asdict(self), "quality": asdict(self.quality) if self.quality else UNMEASURED}
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (folder / CARD).write_text(f"{text}\n", encoding="utf-8")

    @property
    def recipe(self) -> str:
        """A sha256 of everything that determines the bytes of the weights."""
        content = {name: value for name, value in asdict(self).items() if name != "quality"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def faults(self, settings: Settings) -> Iterator[str]:
        """Every difference between the card and the settings, as a sentence."""
        if settings.precision not in ("auto", self.precision):
            yield f"holds {self.precision}, and SNB_PRECISION asks for {settings.precision}"
        asked: dict[str, Source] = {source.role: source for source in sources(settings)}
        for role, origin in (("base", self.base), ("adapter", self.adapter)):
            source = asked.get(role)
            if (source is None) != (origin is None) or (source and origin and not origin.is_of(source)):
                wanted = f"{source.name} at {source.revision}" if source else "none"
                yield f"is made with {role} {origin or 'none'}, and the settings ask for {wanted}"

    def __str__(self) -> str:
        return f"{self.precision} of {self.base} with {self.adapter or 'no adapter'}"


@dataclass(frozen=True)
class Prepared:
    """A verified folder of prepared weights."""

    folder: Path
    card: Card


def find(settings: Settings, hub: Hub | None = None, download: bool = True) -> Prepared | None:
    """The prepared weights that the settings name, or None if they name none; unusable ones raise.

    Args:
        settings: what the operator asks for.
        hub: where a repository is fetched from.
        download: whether absent files are downloaded.

    Raises:
        WeightsMissing: with every file of the folder that is absent, truncated or altered.
        PreparedMismatch: of another base, adapter or precision, or in a format that is not read here.
        DownloadFailed: a repository could not be fetched.
    """
    source = named(settings)
    if source is None:
        return None
    if source.folder is None:
        fitting = partial(_fitting, settings=settings)
        folder = ensure(source, settings, hub, fitting) if download else check(source, settings)
        return Prepared(folder, fitting(folder))
    card = _fitting(source.folder, settings)  # before gigabytes are hashed
    inspect(source.folder, "prepared", verify(source.folder, CURE))
    return Prepared(source.folder, card)


def named(settings: Settings) -> Source | None:
    """Where prepared weights come from; None if base and adapter are to be merged at boot."""
    if settings.prepared == "none":
        return None
    if settings.prepared != "auto":
        return Source.of("prepared", settings.prepared, settings.prepared_revision)
    for place in (settings.weights_dir, ROOT / "weights"):  # the image's own are found whatever is set
        if (place / FOLDER).is_dir():
            return Source.of("prepared", str(place / FOLDER), None)
    return None


def tools() -> dict[str, str]:
    """Versions of the libraries that merge and quantise here."""
    return {name: version(name) for name in TOOLS}


def _fitting(folder: Path, settings: Settings) -> Card:
    card = Card.read(folder)
    if faults := [f"{folder} {fault}" for fault in card.faults(settings)]:
        raise PreparedMismatch(faults, CURE)
    return card
