"""The record of a whole download (commit, size and sha256 of every file), and who may be filling a folder."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from snb.errors import WeightsMissing

log = logging.getLogger(__name__)
NAME = "snb.lock.json"


@dataclass(frozen=True)
class Entry:
    """One file as it was when it was verified: bytes, and sha256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Lock:
    """Written last, so a folder that has one was whole."""

    repository: str
    revision: str
    """What was asked for: a branch, a tag or a commit."""
    commit: str
    """What it stood for on the day."""
    files: dict[str, Entry]

    @classmethod
    def read(cls, folder: Path) -> "Lock | None":
        """The folder's lock, or None where there is none or it is damaged."""
        try:
            fields = json.loads((folder / NAME).read_text(encoding="utf-8"))
            files = {name: Entry(**entry) for name, entry in fields.pop("files").items()}
            return cls(**fields, files=files)
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return None

    def write(self, folder: Path) -> None:
        """Appears whole or not at all, whatever kills the process."""
        draft = folder / f"{NAME}.{os.getpid()}"
        with draft.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=2, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, folder / NAME)


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """One process at a time gets past a lock file, which stays; the system frees it when its holder dies.

    Yields:
        Whether another process had it first.

    Raises:
        OSError: the file cannot be made.
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


def verify(folder: Path, cure: str = "") -> None:
    """Presence and size of every file first, for they are free; then the sha256 of those that pass.

    Args:
        folder: what a lock is in.
        cure: what brings back what is wrong; without it, downloading.

    Raises:
        WeightsMissing: with every fault, or because the folder has no lock.
    """
    lock = Lock.read(folder)
    if lock is None:
        raise WeightsMissing(f"{folder} has no readable {NAME}", cure or "Run scripts/download-weights")
    faults = {name: _size_fault(folder / name, entry) for name, entry in lock.files.items()}
    sized = [name for name, fault in faults.items() if fault is None]
    for name, digest in zip(sized, digests(folder / name for name in sized), strict=True):
        if digest != lock.files[name].sha256:
            faults[name] = f"{name} was altered: its sha256 is not the recorded one"
    found = [fault for fault in faults.values() if fault]
    if found:
        again = f"Run scripts/download-weights to fetch these again into {folder}"
        raise WeightsMissing(found, cure or again)


def digests(paths: Iterable[Path]) -> list[str]:
    """The sha256 of each file in hexadecimal, in order; read in chunks, several files at once."""
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
