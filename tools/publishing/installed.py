"""What a push needs of the machine: Cog, Docker's engine, and a login to Replicate's registry."""

import contextlib
import os
import re
import subprocess
import warnings
from collections.abc import Iterator

from docker import auth
from docker.errors import DockerException

from tools.publishing.finding import Finding
from tools.publishing.project import Project

REGISTRY = "r8.im"
ENGINE = "23.0"
"""The first of Docker's engines that builds with BuildKit by default, and whose `COPY --link`, which Cog
writes, makes a layer that does not depend on those below: that keeps weights apart."""


def programs(project: Project) -> Iterator[Finding]:
    """Whether Cog is here and not older than the SDK that the image gets, and Docker's engine answers."""
    sdk, cure = project.config.build.sdk_version, "Run sh <(curl -fsSL https://cog.run/install.sh)"
    yield _program("COG", ["cog", "--version"], sdk, cure)
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    cure = "Run docker version, which says why; https://docs.docker.com/engine/install has it for each system"
    yield _program("ENGINE", command, ENGINE, cure)


def login(project: Project) -> Iterator[Finding]:
    """Whether `cog login` left a credential where Docker keeps them; what it is goes nowhere."""
    entry, faults = None, (DockerException, OSError, ValueError, LookupError, AttributeError)
    with contextlib.suppress(*faults), warnings.catch_warnings(action="ignore"):  # of an absent helper
        entry = auth.load_config().resolve_authconfig(REGISTRY)
    if entry:
        yield Finding("ok", "LOGIN", f"Docker has a login to {REGISTRY}")
    else:
        yield Finding("error", "NOT_LOGGED_IN", f"Docker has no login to {REGISTRY}", "Run cog login")


def _program(code: str, command: list[str], least: str, cure: str) -> Finding:
    """Asks a program for its version."""
    version = output(*command)
    if not _numbers(version):
        return Finding("error", f"{code}_ABSENT", f"{' '.join(command)} tells no version", cure)
    if _numbers(version) < _numbers(least):
        return Finding("error", f"{code}_OLD", f"{version}, and {least} is needed", cure)
    return Finding("ok", code, version)


def output(*command: str) -> str:
    """What a program says; nothing where it is absent or silent."""
    quiet = {**os.environ, "COG_NO_UPDATE_CHECK": "1"}  # cog would ask its release page first
    try:
        return subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _numbers(text: str) -> list[int]:
    version = re.search(r"\d+(?:\.\d+)+", text)
    return [int(number) for number in version[0].split(".")] if version else []
