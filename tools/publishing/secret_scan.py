"""Secrets in what would be sent: files whose name says they hold one, and lines of text that hold one.

detect-secrets does the reading. Tried on the keys that each host of docs/repli.md issues, in scripts,
dotfiles and Python, it missed those in FORMS; nor does it know the variables of this shell. A finding names
the file and the line, and never repeats the secret.
"""

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from shlex import quote

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.core.scan import scan_file
from detect_secrets.settings import transient_settings

from tools.publishing.finding import Finding
from tools.publishing.project import Project

FILES = (
    *("*.env", ".env.*", ".envrc", "*_history", "*api_key", "[._]netrc", ".npmrc", ".pypirc"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "secrets.*", "credentials.json", "service-account*.json"),
    *("id_rsa", "id_ed25519", ".git-credentials"),
)
FOLDERS = {".docker", ".aws", ".ssh", ".kube", ".git", ".huggingface", ".config", ".runpod", ".sky"}
EXAMPLES = (".example", ".sample", ".template")
FORMS = {
    r"(?<![A-Za-z0-9])(?:api_org|hf|r8|rpa)_[A-Za-z0-9]{16,}": "a token of Hugging Face, Replicate or RunPod",
    r"(?<![^\W_])(?:nf[bcopu]_\w{36}|github_pat_\w{40}|sk-[\w-]{20})": "a token of Netlify, GitHub or OpenAI",
    r"(?i)(?:--?auth|api-?key)[ =:\"']+(?=\S*\d)[\w-]{20,}": "a key that a command is given",
    r"Bearer +(?=\S*[-\d])[^\s\"'$`{<(…]{8,}(?=[\s\"']|$)": "a key in a header",
    r"\b[A-Z_]*(?:TOKEN(?!IZ)|JETON|SECRET|PASSW|CREDENTIAL|KEY)[A-Z_]*="
    r"(\"?'?)[^\s\"'$`{<(…*]{8,}(?=\1(?:\s|$))": "a variable's secret value",
}
VARIABLE = re.compile(r"TOKEN(?!IZ)|JETON|SECRET|PASSW|CREDENTIAL|(API|PRIVATE|ACCESS)_?KEY", re.IGNORECASE)
SHORTEST = 8
"""Fewest characters of a shell variable whose value is searched for: shorter ones occur by chance."""
GUESSES = {"Base64HighEntropyString", "HexHighEntropyString", "IPPublicDetector"}
"""Plugins of detect-secrets that take a pinned commit or an IP address for a secret; not used."""
LARGEST = 1_000_000
"""Most bytes of a text that is read: detect-secrets reads 50,000 to 140,000 a second (measured)."""
CURE = "Take it out and revoke it, or run echo {} >> .dockerignore; who may run an image may read it"


def check(project: Project) -> Iterator[Finding]:
    """Looks at cog.yaml and every file that is sent, but for the large ones among the weights of a boot."""
    faults, context = [*_in_config(project)], project.context
    known: dict[str, type] = get_mapping_from_secret_type_to_class()
    plugins = {plugin.__name__ for plugin in known.values()} - GUESSES
    with transient_settings({"plugins_used": [{"name": name} for name in sorted(plugins)]}):
        large = {name for name in project.sent_weights if context.files[name] > LARGEST}
        for name in sorted({*context.files, *context.links} - large):
            faults += _in_file(name, context.root / name, context.files.get(name, 0))
    yield from faults or [Finding("ok", "SECRETS", f"no secret in the {len(context.files)} files to be sent")]


def _in_config(project: Project) -> Iterator[Finding]:
    for name, value in project.environment.items():
        if VARIABLE.search(name) and value.strip():
            text = f"cog.yaml, `environment:` sets {name}, which everybody who may see the model can read"
            cure = f"Delete the line {name}=… and revoke it; on Replicate no secret reaches setup()"
            yield Finding("error", "SECRET_IN_CONFIG", text, cure)


def _in_file(name: str, path: Path, size: int) -> Iterator[Finding]:
    cure, secret = CURE.format(quote(name)), any(fnmatchcase(path.name.lower(), form) for form in FILES)
    if (secret or FOLDERS & {*Path(name).parts}) and path.suffix not in EXAMPLES:
        text = f"{name} would be sent, and such files hold secrets"
        yield Finding("error", "SECRET_FILE", text, cure)
    elif size > LARGEST and _is_text(path):
        text = f"{name} is too large to be searched for secrets"
        cure = f"If no boot needs it, run echo {quote(name)} >> .dockerignore"
        yield Finding("warning", "SECRETS_SKIMMED", text, cure)
    elif 0 < size <= LARGEST:
        for number, kind in sorted(_lines(path).items()):
            yield Finding("error", "SECRET_IN_FILE", f"{name}, line {number}: {kind}", cure)


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\0" not in file.read(8192)


def _lines(path: Path) -> dict[int, str]:
    """The kind of secret by the number of its line. NUL bytes, of which UTF-16 is full, are dropped first."""
    kinds = {secret.line_number: secret.type for secret in scan_file(str(path))} if _is_text(path) else {}
    own = {name: value for name, value in os.environ.items() if VARIABLE.search(name)}
    text = path.read_bytes().replace(b"\0", b"").decode(errors="replace")
    for number, line in enumerate(text.split("\n"), 1):
        kinds.update((number, kind) for form, kind in FORMS.items() if re.search(form, line))
        for name, value in own.items():
            if len(value) >= SHORTEST and value in line:
                kinds[number] = f"the value of this shell's {name}"
    return kinds
