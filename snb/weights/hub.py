"""Downloads files of one commit of a hub repository, and verifies them against what the hub declares.

Transient failures are retried with exponential back-off; all others are raised at once.
"""

import json
import logging
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx2  # the client inside huggingface_hub; its errors come through unwrapped
from huggingface_hub import HfApi, ModelInfo, snapshot_download
from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.utils import parse_ratelimit_headers
from huggingface_hub.utils.sha import git_hash

from snb.errors import BadSetting, DownloadFailed
from snb.weights.lock import Entry, digests

logger = logging.getLogger(__name__)
T = TypeVar("T")
TIMEOUT = 30.0
"""Seconds for the listing, the one request for which the library has no timeout of its own."""
MARGIN = 1 << 30
"""Bytes of disk to leave free."""
ATTEMPTS = 5
LONGEST_PAUSE = 60.0
"""Seconds; the hub itself may ask for more."""
COMMIT = re.compile("[0-9a-f]{40}")
SHOWN = 60
"""Characters quoted of an answer that did not come from a hub."""


class Passing(Exception):
    """A transient fault of a transfer; its text holds no address and no secret."""


class Foreign(Exception):
    """The response did not come from a hub but, say, from a login page or a proxy. Its text is one line."""


FAULTS = (Passing, Foreign, httpx2.HTTPError, OSError, RuntimeError)
"""What a transfer can raise; RuntimeError comes from hf_xet."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub declares it: size in bytes, sha256 if it is in LFS, and git's blob hash if not."""

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
        """Lists a repository at a branch, a tag or a commit, resolved to the commit, in one request.

        Raises:
            DownloadFailed: the hub refused or did not answer, or what answered is not a hub.
        """
        api = HfApi(endpoint=self.endpoint, token=self.token or False)

        def ask() -> Listing:
            try:
                info = api.model_info(repository, revision=revision, files_metadata=True, timeout=TIMEOUT)
                return _listing(repository, info)
            except (ValueError, TypeError, LookupError) as error:  # the library parses any 200 response
                start = f": {error.doc[:SHOWN]!r}" if isinstance(error, json.JSONDecodeError) else ""
                raise Foreign(f"what answered does not list a repository{start}") from error

        return self._patiently(f"{repository} at {revision}", ask)

    def fetch(self, listing: Listing, names: Set[str], folder: Path) -> dict[str, Entry]:
        """Downloads those of the named files that the folder lacks or that differ; returns all their entries.

        Raises:
            DownloadFailed: the hub refused, did not answer or sent wrong bytes, or the disk is too small.
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
            cure = "Check SNB_BASE_REVISION, SNB_ADAPTER_REVISION and SNB_PREPARED_REVISION"
        elif status(error) in (401, 403, 404):
            held = "has no access to it" if self.token else "is not set"
            cure = f"If the name is right, it is private or gated, and HF_TOKEN {held}"
        elif foreign(error):
            cure = (
                "A login page, a proxy or a partial mirror answered: see it in a browser, check HF_ENDPOINT"
            )
        else:
            cure = "Run scripts/download-weights again: the files that are whole are kept"
            if any(isinstance(link, httpx2.ConnectError) for link in _chain(error)):
                what = f"no network to the hub; {what}"
                cure += "; if all of them are here, set HF_HUB_OFFLINE=1"
        return DownloadFailed(f"{what}: {reason(error)}", cure)


def _listing(repository: str, info: ModelInfo) -> Listing:
    """The top-level files in a response. Raises Foreign if it lacks something that a hub always gives."""
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


def patiently(what: str, call: Callable[[], T], sleep: Callable[[float], None]) -> T:
    """Calls up to `ATTEMPTS` times, with exponential back-off and jitter, or longer pauses if the hub asks.

    Raises:
        one of `FAULTS`: the last call's, or the first that is not transient.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        except FAULTS as error:
            if not may_pass(error):
                raise
            doubled = min(LONGEST_PAUSE, 2.0**attempt) * random.uniform(0.5, 1.0)
            pause = max(doubled, retry_after(error))
            logger.warning("%s: %s; attempt %d in %.0f s", what, reason(error), attempt + 1, pause)
            sleep(pause)
    return call()


def may_pass(error: BaseException) -> bool:
    """Whether a fault is transient: lost connections, 408, 429 and 5xx, not other statuses or disk errors."""
    if foreign(error):
        return False
    answered = status(error)
    if answered is not None:
        return answered in (408, 429) or answered >= 500
    chain = [*_chain(error)]
    # A connection that was reset has an errno too, as a full disk has.
    lost = any(isinstance(link, httpx2.TransportError) for link in chain)
    return lost or not any(isinstance(link, OSError) and link.errno for link in chain)


def status(error: BaseException) -> int | None:
    """The HTTP status of the hub's answer, if it gave one."""
    return next((answer.status_code for answer in _answers(error)), None)


def retry_after(error: BaseException) -> float:
    """Seconds that the hub asks to wait, in Retry-After or RateLimit; 0 if in neither, or if it is a date."""
    answer = next(_answers(error), None)
    if answer is None:
        return 0.0
    asked, limit = answer.headers.get("Retry-After", ""), parse_ratelimit_headers(answer.headers)
    after = float(asked) if asked.isascii() and asked.isdigit() else 0.0
    return max(after, limit.reset_in_seconds) if limit and not limit.remaining else after


def foreign(error: BaseException) -> bool:
    """Whether something other than a hub has answered."""
    return any(isinstance(link, Foreign | FileMetadataError) for link in _chain(error))


def reason(error: BaseException) -> str:
    """What went wrong, in a few words, without the address, since a signed one is a secret."""
    answered = status(error)
    if answered is not None:
        return f"the hub answered {answered}"
    if isinstance(error, Passing | Foreign):
        return str(error)
    if foreign(error):
        return "what answered lacks the headers of a hub"
    for link in _chain(error):
        if isinstance(link, httpx2.NetworkError | httpx2.TimeoutException):
            return str(link) or type(link).__name__
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
        if type(link) is OSError:  # what huggingface_hub 2.4 raises for a file of another size than declared
            return "a file came in another size than was declared"
    return type(error).__name__


def _answers(error: BaseException) -> Iterator[httpx2.Response]:
    return (link.response for link in _chain(error) if isinstance(link, HfHubHTTPError))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes: the library hides the hub's answer behind errors of its own."""
    while error is not None:
        yield error
        error = error.__cause__
