"""Whether `cog login` was done: it leaves its credential where Docker keeps those of every registry."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tools.publishing.finding import Finding, error, ok
from tools.publishing.project import Project

REGISTRY = "r8.im"
CURE = "Run cog login"
SECONDS = 30
"""For a helper's answer; some ask the person first."""


def check(project: Project) -> Iterator[Finding]:
    """Looks for a credential of Replicate's registry, and says where it is, never what it is."""
    file = _file(project.environ)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        places = list(_places(config))
    except FileNotFoundError:
        places = []
    except (OSError, ValueError, AttributeError):
        yield error("NOT_LOGGED_IN", "Docker's config.json cannot be read", f"Repair it. {CURE}")
        return
    faults = []
    for name, held in places:
        fault = None if isinstance(held, Mapping) else _asked(str(held), project.environ)
        if fault is None:
            yield ok("LOGIN", f"{name} has a login to {REGISTRY}")
            return
        faults.append(fault)
    reason = "; ".join(faults) or "Docker's config.json has none"
    yield error("NOT_LOGGED_IN", f"no login to {REGISTRY}: {reason}", CURE)


def _file(environ: Mapping[str, str]) -> Path:
    folder = environ.get("DOCKER_CONFIG")
    return (
        Path(folder) if folder else Path(environ.get("HOME", "~")).expanduser() / ".docker"
    ) / "config.json"


def _places(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """Where a login may be: helpers by their name, and an entry of the file itself.

    `cog login` takes `credsStore` where there is one, and else the file. A push looks there and, for its
    registry client does, in `credHelpers`. With a helper, the file keeps an entry that is empty.
    """
    for name, helper in (
        ("credHelpers", config.get("credHelpers", {}).get(REGISTRY)),
        ("credsStore", config.get("credsStore")),
    ):
        if helper:
            yield f"{name} ({helper})", str(helper)
    entry = config.get("auths", {}).get(REGISTRY) or {}
    if any(entry.get(name) for name in ("auth", "password", "identitytoken", "registrytoken")):
        yield "Docker's config.json", entry


def _asked(helper: str, environ: Mapping[str, str]) -> str | None:
    """None where a helper has a credential, else what is wrong. Its output is the secret: it goes nowhere."""
    name = f"docker-credential-{helper}"
    program = shutil.which(name, path=environ.get("PATH", ""))
    if program is None:
        return f"{name} is not on PATH"
    try:
        done = subprocess.run(
            [program, "get"],
            input=REGISTRY,
            env=dict(environ),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        held = not done.returncode and bool(json.loads(done.stdout).get("Secret"))
    except (OSError, ValueError, AttributeError, subprocess.TimeoutExpired):
        held = False
    return None if held else f"{name} has none"
