"""What a push needs of the machine: Cog, Docker's engine, and a login to Replicate's registry."""

import contextlib
import warnings
from collections.abc import Iterator

from docker import auth
from docker.errors import DockerException

from tools.machine import output
from tools.publishing.finding import Finding
from tools.publishing.project import Project

REGISTRY = "r8.im"
PROGRAMS = {
    "COG": ("cog --version", "Run sh <(curl -fsSL https://cog.run/install.sh)"),
    "ENGINE": (
        "docker version --format {{.Server.Version}}",
        "Run docker version, which says why; https://docs.docker.com/engine/install has it for each system",
    ),
}
"""The command that prints each program's version, and what to do if it does not."""


def programs(_: Project) -> Iterator[Finding]:
    """Whether Cog is installed and Docker's engine answers; a build says so only after hashing gigabytes."""
    for code, (command, cure) in PROGRAMS.items():
        if version := output(*command.split()):
            yield Finding("ok", code, version)
        else:
            yield Finding("error", f"{code}_ABSENT", f"{command} tells no version", cure)


def login(_: Project) -> Iterator[Finding]:
    """Whether `cog login` has left a credential in Docker's store; the credential itself is not used."""
    entry, faults = None, (DockerException, OSError, ValueError, LookupError, AttributeError)
    with contextlib.suppress(*faults), warnings.catch_warnings(action="ignore"):  # about an absent helper
        entry = auth.load_config().resolve_authconfig(REGISTRY)
    if entry:
        yield Finding("ok", "LOGIN", f"Docker has a login to {REGISTRY}")
    else:
        yield Finding("error", "NOT_LOGGED_IN", f"Docker has no login to {REGISTRY}", "Run cog login")
