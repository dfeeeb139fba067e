"""Secrets in what would be sent: files that are one by their name, and lines of text that hold one.

A finding names the file and the line, and never repeats what is there.
"""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

from detect_secrets.core.scan import scan_line
from detect_secrets.settings import transient_settings

from snb.errors import SNBError
from tools.publishing.finding import Finding, error, ok, unchecked, warning
from tools.publishing.project import Project
from tools.publishing.secret_forms import EXAMPLES, FILTERS, INSTALLED, KNOWN, NAMES, PATHS, PLUGINS, VARIABLE

Lines = list[tuple[int, str]]
"""Numbers from 1, and text."""

OWN = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "REPLICATE_API_TOKEN", "SNB_API_KEY")
SHORTEST = 8
"""Characters of a value of this environment that is looked for: a shorter one is in many files by chance."""
LONGEST = 2_000
"""Characters of a line that detect-secrets reads: beyond are pictures of a notebook."""
MOST, MOST_IN_ALL = 1_000_000, 10_000_000
"""Characters of a file, and of all, that detect-secrets reads: 50,000 to 140,000 a second (measured here)."""
LARGEST = 256 << 20
"""Bytes of a text that is read at all."""
CURE = "Take it out and revoke it, or name the file in .dockerignore; an image is read by whoever may run it"


def check(project: Project) -> Iterator[Finding]:
    """Looks at every file that is sent, but weights whose hashes are recorded."""
    try:
        verified = project.weights.names
    except SNBError:
        verified = frozenset()
    context = project.context.without(verified)
    own = {name: project.environ.get(name, "") for name in OWN}
    reading = Reading({name: value for name, value in own.items() if len(value) >= SHORTEST})
    found = [*_in_config(project)]
    for name in [*context.files, *context.links]:
        found += _by_name(name)
    for name in context.files:
        found += reading.file(name, context.root / name)
    yield from found or [ok("SECRETS", f"no secret in {len(context.files)} files that would be sent")]
    if reading.skimmed:
        said = f"in {', '.join(reading.skimmed[:5])} only known forms of tokens were looked for"
        more = f" and {len(reading.skimmed) - 5} more" if len(reading.skimmed) > 5 else ""
        yield warning(
            "SECRETS_SKIMMED", f"{said}{more}: there is too much text", "Leave out what no boot needs"
        )


def _in_config(project: Project) -> Iterator[Finding]:
    """Variables of cog.yaml's `environment:` that are secret by their name."""
    try:
        baked = project.baked
    except SNBError:
        return
    for name, value in baked.items():
        if VARIABLE.search(name) and value.strip():
            said = f"cog.yaml, `environment:` sets {name}, which everybody who may see the model can read"
            cure = "Take it out and revoke it; on Replicate no secret reaches setup()"
            yield error("SECRET_IN_CONFIG", said, cure)


def _by_name(name: str) -> Iterator[Finding]:
    last = name.rpartition("/")[2]
    named = any(fnmatch(last, form) for form in NAMES) and not any(fnmatch(last, form) for form in EXAMPLES)
    if named or any(fnmatch(f"/{name}", f"*/{end}") for end in PATHS):
        yield error("SECRET_FILE", f"{name} would be sent, and such files hold secrets", CURE)


class Reading:
    """Reads one file after the other, thoroughly as long as there is not too much.

    Args:
        own: secrets of this environment, by the variable that holds each.
    """

    def __init__(self, own: Mapping[str, str]) -> None:
        self._own = own
        self._left = MOST_IN_ALL
        self.skimmed: list[str] = []
        """Files of which only known forms were looked for."""

    def file(self, name: str, path: Path) -> Iterator[Finding]:
        """One finding for each line that holds a secret."""
        try:
            text = _text(path)
        except OSError as failure:
            said = f"{name} cannot be read: {failure.strerror}"
            yield unchecked("SECRETS_UNREAD", said, "Make it readable, or leave it out")
            return
        if text is None:
            return
        lines = [(n, part) for n, line in enumerate(text.split("\n"), 1) for part in _parts(name, line)]
        found = dict(
            reversed([*self._known(lines), *self._suspected(name, lines)])
        )  # the first of a line stays
        for number, what in sorted(found.items()):
            yield error("SECRET_IN_FILE", f"{name}, line {number}: {what}", CURE)

    def _known(self, lines: Lines) -> Iterator[tuple[int, str]]:
        for number, line in lines:
            for variable, value in self._own.items():
                if value in line:
                    yield number, f"the value of this shell's {variable}"
            for what, form in KNOWN.items():
                if form.search(line):
                    yield number, what

    def _suspected(self, name: str, lines: Lines) -> Iterator[tuple[int, str]]:
        """What detect-secrets takes for one."""
        short = [(number, line) for number, line in lines if line.strip() and len(line) <= LONGEST]
        size = sum(len(line) for _, line in short)
        if size > min(MOST, self._left) or any(f"/{folder}/" in f"/{name}" for folder in INSTALLED):
            self.skimmed.append(name)
            return
        self._left -= size
        yield from _detected(short)


def _detected(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    settings = {
        "plugins_used": [{"name": name} for name in PLUGINS],
        "filters_used": [{"path": f"detect_secrets.filters.{name}"} for name in FILTERS],
    }
    with transient_settings(settings):
        for number, line in lines:
            kinds = sorted({secret.type for secret in scan_line(line)})
            if kinds:
                yield number, f"looks like a secret ({', '.join(kinds)})"


def _text(path: Path) -> str | None:
    """A file's text; None for what is none, or too large to be one that somebody wrote."""
    if path.stat().st_size > LARGEST:
        return None
    with path.open("rb") as file:
        if b"\0" in file.read(8192):
            return None
    return path.read_bytes().decode("utf-8", errors="replace")


def _parts(name: str, line: str) -> list[str]:
    """A line of a notebook is a line of JSON: what its author wrote is between escapes."""
    if not name.endswith(".ipynb"):
        return [line]
    return line.replace("\\n", "\n").replace('\\"', '"').split("\n")
