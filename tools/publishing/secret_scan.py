"""Secrets in what would be sent: files that are one by their name, and lines of text that hold one.

detect-secrets does the reading. It knows neither Hugging Face's nor Replicate's tokens, nor what is in this
shell, so those are looked for here. A finding names the file and the line, and never repeats what is there.
"""

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.core.scan import scan_file
from detect_secrets.settings import transient_settings

from tools.publishing.finding import Finding
from tools.publishing.project import Project

FILES = (
    *("*.env", ".env.*", ".netrc", ".npmrc", ".pypirc", ".git-credentials", "id_rsa", "id_ed25519"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "secrets.*", "credentials.json", "service-account*.json"),
)
FOLDERS = {".docker", ".aws", ".ssh", ".kube", ".git", ".huggingface"}
EXAMPLES = (".example", ".sample", ".template")
TOKEN = re.compile(r"(?<![A-Za-z0-9])(?:api_org|hf|r8)_[A-Za-z0-9]{16,}")
VARIABLE = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(API|PRIVATE|ACCESS)_?KEY", re.IGNORECASE)
OWN = ("HF_TOKEN", "REPLICATE_API_TOKEN", "SNB_API_KEY")
SHORTEST = 8
"""Characters of a value of this shell that is looked for: a shorter one is in many files by chance."""
GUESSES = {"Base64HighEntropyString", "HexHighEntropyString", "IPPublicDetector"}
"""Of detect-secrets: to these a pinned commit and an address are secrets too."""
LARGEST = 1_000_000
"""Bytes of a text that is read: detect-secrets reads 50,000 to 140,000 a second (measured)."""
CURE = "Take it out and revoke it, or name the file in .dockerignore; an image is read by whoever may run it"


def check(project: Project) -> Iterator[Finding]:
    """Looks at cog.yaml and every file that is sent, but weights whose hashes are recorded."""
    faults, context = [*_in_config(project)], project.context
    known: dict[str, type] = get_mapping_from_secret_type_to_class()
    plugins = {plugin.__name__ for plugin in known.values()} - GUESSES
    with transient_settings({"plugins_used": [{"name": name} for name in sorted(plugins)]}):
        for name in sorted({*context.files, *context.links} - project.sent_weights):
            faults += _in_file(name, context.root / name, context.files.get(name, 0))
    yield from faults or [Finding("ok", "SECRETS", f"no secret in the {len(context.files)} files to be sent")]


def _in_config(project: Project) -> Iterator[Finding]:
    for name, value in project.environment.items():
        if VARIABLE.search(name) and value.strip():
            text = f"cog.yaml, `environment:` sets {name}, which everybody who may see the model can read"
            cure = "Take it out and revoke it; on Replicate no secret reaches setup()"
            yield Finding("error", "SECRET_IN_CONFIG", text, cure)


def _in_file(name: str, path: Path, size: int) -> Iterator[Finding]:
    if FOLDERS & {*Path(name).parts} or any(fnmatch(path.name, form) for form in FILES):
        if path.suffix not in EXAMPLES:
            yield Finding("error", "SECRET_FILE", f"{name} would be sent, and such files hold secrets", CURE)
    elif size > LARGEST and _is_text(path):
        text = f"{name} is too large to be searched for secrets"
        yield Finding("warning", "SECRETS_SKIMMED", text, "Leave it out if no boot needs it")
    elif size and _is_text(path):
        for number, kind in sorted(_lines(path).items()):
            yield Finding("error", "SECRET_IN_FILE", f"{name}, line {number}: {kind}", CURE)


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\0" not in file.read(8192)


def _lines(path: Path) -> dict[int, str]:
    """The numbers of the lines that hold a secret, and its kind."""
    kinds = {secret.line_number: secret.type for secret in scan_file(str(path))}
    own = {name: value for name in OWN if len(value := os.environ.get(name, "")) >= SHORTEST}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), 1):
        if TOKEN.search(line):
            kinds[number] = "a token of Hugging Face or Replicate"
        for name, value in own.items():
            if value in line:
                kinds[number] = f"the value of this shell's {name}"
    return kinds
