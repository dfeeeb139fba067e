"""Downloads files of one commit of a hub repository, and verifies them against what the hub declares."""

import json
import re
import shutil
import time
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi, ModelInfo, snapshot_download
from huggingface_hub.errors import RevisionNotFoundError
from huggingface_hub.utils.sha import git_hash

from snb.errors import BadSetting, DownloadFailed
from snb.weights.lock import Entry, digests
from snb.weights.retry import FAULTS, Foreign, Passing, foreign, patiently, reason, status

T = TypeVar("T")
TIMEOUT = 30.0
"""Seconds for the listing, the one request for which the library has no timeout of its own."""
MARGIN = 1 << 30
"""Bytes of disk to leave free."""
COMMIT = re.compile("[0-9a-f]{40}")
SHOWN = 60
"""Characters quoted of an answer that did not come from a hub."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub declares it: bytes, the sha256 where it is in LFS, and git's hash for the others."""

    size: int
    sha256: str | None
    blob: str


@dataclass(frozen=True)
class Listing:
    """The top-level files of a repository at one commit; its folders are never read."""

    repository: str
    commit: str
    files: dict[str, RemoteFile]


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk that holds a folder."""
    return shutil.disk_usage(folder).free


@dataclass(frozen=True)
class Hub:
    """A hub and the token to read from it; without `endpoint` it is HF_ENDPOINT's, or huggingface.co.

    Raises:
        BadSetting: the token cannot be sent in a header; the HTTP client would quote it in its own error.
    """

    token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    free_bytes: Callable[[Path], int] = free_bytes
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        if self.token and not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            raise BadSetting("HF_TOKEN has a character that no token has", "Copy the token again")

    def listing(self, repository: str, revision: str) -> Listing:
        """Resolves a branch, a tag or a commit, in one request.

        Raises:
            DownloadFailed: the hub refused or did not answer, or what answered is not a hub.
        """
        api = HfApi(endpoint=self.endpoint, token=self.token or False)

        def ask() -> Listing:
            try:
                info = api.model_info(repository, revision=revision, files_metadata=True, timeout=TIMEOUT)
                return _listing(repository, info)
            except (ValueError, TypeError, LookupError) as error:  # the library parses any 200
                start = f": {error.doc[:SHOWN]!r}" if isinstance(error, json.JSONDecodeError) else ""
                raise Foreign(f"what answered is no listing of a repository{start}") from error

        return self._patiently(f"{repository} at {revision}", ask)

    def fetch(self, listing: Listing, names: Set[str], folder: Path) -> dict[str, Entry]:
        """Downloads the named files into the folder, except those that are there and match.

        Raises:
            DownloadFailed: the hub refused, did not answer or sent other bytes than it declares, or the disk
                is too small.
        """
        files = {name: listing.files[name] for name in names}

        def bring() -> dict[str, Entry]:
            folder.mkdir(parents=True, exist_ok=True)
            entries = right(folder, files)
            if missing := {name: file for name, file in files.items() if name not in entries}:
                self._download(listing, missing, folder)
                entries |= right(folder, missing)
            if wrong := files.keys() - entries.keys():
                raise Passing(f"{', '.join(sorted(wrong))} is not what the hub declares")
            return entries

        return self._patiently(f"{listing.repository} at {listing.commit}", bring)

    def _download(self, listing: Listing, files: dict[str, RemoteFile], folder: Path) -> None:
        for name in files:
            # The library trusts a file that has not been modified since, even a truncated one.
            (folder / name).unlink(missing_ok=True)
        self._require_room(folder, sum(file.size for file in files.values()))
        snapshot_download(
            listing.repository,
            revision=listing.commit,
            local_dir=folder,
            allow_patterns=sorted(files),
            endpoint=self.endpoint,
            token=self.token or False,
        )

    def _require_room(self, folder: Path, needed: int) -> None:
        free = self.free_bytes(folder)
        if free < needed + MARGIN:
            raise DownloadFailed(
                f"{needed:,} bytes and a margin of {MARGIN:,} do not fit the {free:,} free at {folder}",
                "Free some, or set SNB_WEIGHTS_DIR to a folder on a larger disk",
            )

    def _patiently(self, what: str, call: Callable[[], T]) -> T:
        try:
            return patiently(what, call, self.sleep)
        except FAULTS as error:
            raise self._failure(what, error) from error

    def _failure(self, what: str, error: BaseException) -> DownloadFailed:
        if isinstance(error, RevisionNotFoundError):
            cure = "Check SNB_BASE_REVISION and SNB_ADAPTER_REVISION"
        elif status(error) in (401, 403, 404):
            held = "is set and does not open it" if self.token else "is not set"
            cure = f"If the name is right, it is private or gated and wants HF_TOKEN, which {held}"
        elif foreign(error):
            cure = "A login page, a proxy or a partial mirror answers for the hub: see it, and HF_ENDPOINT"
        else:
            cure = "Run scripts/download-weights again: the files that are whole are kept"
        return DownloadFailed(f"{what}: {reason(error)}", cure)


def _listing(repository: str, info: ModelInfo) -> Listing:
    """The top-level files in an answer. Raises Foreign if it lacks something that a hub always gives."""
    if not COMMIT.fullmatch(info.sha or ""):
        raise Foreign("what answered names no commit")
    files = {}
    for file in info.siblings or ():
        if file.size is None or not (file.lfs or file.blob_id):
            raise Foreign(f"what answered lists {file.rfilename} without size or hash")
        if "/" not in file.rfilename:
            sha256 = file.lfs.sha256 if file.lfs else None
            files[file.rfilename] = RemoteFile(file.size, sha256, file.blob_id or "")
    return Listing(repository, info.sha, files)


def right(folder: Path, files: dict[str, RemoteFile]) -> dict[str, Entry]:
    """Those of the files in the folder that match what the hub declares: by size first, then by hash."""
    present = {name: folder / name for name in files if (folder / name).is_file()}
    sized = {name: path for name, path in present.items() if path.stat().st_size == files[name].size}
    hashed = zip(sized, digests(sized.values()), strict=True)
    return {n: Entry(files[n].size, sha256) for n, sha256 in hashed if _declared(sized[n], files[n], sha256)}


def _declared(path: Path, file: RemoteFile, sha256: str) -> bool:
    if file.sha256:
        return sha256 == file.sha256
    return bool(git_hash(path.read_bytes()) == file.blob)
