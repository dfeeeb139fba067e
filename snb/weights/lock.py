"""The record of a complete download (commit, size and sha256 of every file), and a lock between processes."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from snb.errors import WeightsMissing
from snb.weights import document

log = logging.getLogger(__name__)
NAME = "snb.lock.json"
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
"""A file name that cannot lead out of its folder."""
SHA256 = re.compile("[0-9a-f]{64}")
READ = (".json", ".safetensors")
"""Suffixes of the files that a boot reads; no file of another kind is ever opened."""


@dataclass(frozen=True)
class Entry:
    """One file when it was verified: its size in bytes, and its sha256 in hexadecimal."""

    size: int
    sha256: str

    @property
    def sound(self) -> bool:
        """Whether these can be a size and a sha256."""
        return type(self.size) is int and self.size >= 0 and bool(SHA256.fullmatch(self.sha256))


@dataclass(frozen=True)
class Lock:
    """The record of a complete download; it is written last, so a folder that has one was complete."""

    repository: str
    revision: str
    """The branch, tag or commit that was asked for."""
    commit: str
    """The commit that it stood for at the time."""
    files: dict[str, Entry]

    @classmethod
    def read(cls, folder: Path) -> "Lock | None":
        """The folder's lock; None if there is none, or if it is damaged or names no files."""
        try:
            fields = document.read(folder / NAME)
            files = {name: Entry(**entry) for name, entry in fields.pop("files").items()}
            sound = all(PLAIN.fullmatch(name) and entry.sound for name, entry in files.items())
            texts = all(isinstance(value, str) for value in fields.values())
            return cls(**fields, files=files) if files and sound and texts else None
        except (WeightsMissing, TypeError, LookupError, AttributeError):
            return None

    def write(self, folder: Path) -> None:
        """Writes atomically: a process that is killed leaves no partial file of this name."""
        draft = folder / f"{NAME}.{os.getpid()}"
        with draft.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=2, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, folder / NAME)


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """One process at a time runs the block. The lock file stays; the system unlocks it if its holder dies.

    Yields:
        Whether another process held it first.

    Raises:
        OSError: the lock file cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, waited = FileLock(path), False
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        log.warning("another process holds %s; waiting for it", path)
        held, waited = lock.acquire(), True
    with held:
        yield waited


def verify(folder: Path, cure: str = "") -> set[str]:
    """Checks presence and size of every file first, which cost nothing, then the sha256 of those that pass.

    Args:
        folder: the one that holds the lock.
        cure: what the error says to do; if empty, to download again.

    Returns:
        The names of the files, which are all that may be loaded.

    Raises:
        WeightsMissing: with every fault, files that are not in the lock included, or if there is no lock.
    """
    lock = Lock.read(folder)
    if lock is None:
        raise WeightsMissing(f"{folder} has no readable {NAME}", cure or "Run scripts/download-weights")
    faults = {name: _size_fault(folder / name, entry) for name, entry in lock.files.items()}
    sized = [name for name, fault in faults.items() if fault is None]
    for name, digest in zip(sized, digests(folder / name for name in sized), strict=True):
        if digest != lock.files[name].sha256:
            faults[name] = f"{name} was altered: its sha256 is not the recorded one"
    problems = [*(fault for fault in faults.values() if fault), *strays(folder, lock.files)]
    if problems:
        again = f"Run scripts/download-weights to fetch these again into {folder}"
        raise WeightsMissing(problems, cure or again)
    return set(lock.files)


def strays(folder: Path, names: Iterable[str]) -> list[str]:
    """A sentence for each JSON or safetensors file in the folder that is not one of `names`."""
    read = {path.name for path in folder.iterdir() if path.suffix.lower() in READ}
    return [f"{name} is beside what {NAME} lists: remove it" for name in sorted(read - {NAME, *names})]


def digests(paths: Iterable[Path]) -> list[str]:
    """The sha256 of each file in hexadecimal, in order; several files are read at once, in chunks."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(_sha256, paths))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size_fault(path: Path, entry: Entry) -> str | None:
    if not path.is_file():
        return f"{path.name} is absent"
    size = path.stat().st_size
    return None if size == entry.size else f"{path.name} has {size} bytes, not {entry.size}"
