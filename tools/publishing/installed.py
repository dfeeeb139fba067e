"""The programs that publish: Cog, and Docker with its engine and BuildKit."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

from tools.publishing.finding import Finding, error, ok, unchecked, warning
from tools.publishing.project import Project

ENGINE = (23, 0)
"""Of Docker's engine. Cog gives Dockerfiles with `RUN --mount` and `COPY --link` to the engine's BuildKit;
23.0 is the first that builds with it by default, and whose BuildKit makes a link a layer that does not depend
on those below, which is what keeps weights apart."""
SECONDS = 30
"""For an answer; an engine that is starting takes some."""


def cog(project: Project) -> Iterator[Finding]:
    """Whether Cog is here, and not older than the SDK that the image gets."""
    wanted = str(project.config["build"].get("sdk_version", ""))
    install = f"Install Cog {wanted or 'of the latest release'}: https://cog.run"
    said = _run(project, ["cog", "--version"])
    if said is None:
        yield error("COG_ABSENT", "cog is not on PATH, or does not run", install)
        return
    found, least = _version(said.stdout), _version(wanted)
    if found is None or least is None:
        yield unchecked("COG", "cog does not say a version that can be compared with sdk_version", install)
    elif found < least:
        yield error("COG_OLD", f"cog is {_dotted(found)}, and cog.yaml asks for {_dotted(least)}", install)
    else:
        yield ok("COG", f"cog {_dotted(found)}")


def docker(project: Project) -> Iterator[Finding]:
    """Whether Docker's engine answers and is new enough, and whether buildx is there."""
    said = _run(project, ["docker", "version", "--format", "{{json .}}"])
    if said is None:
        yield error("DOCKER_ABSENT", "docker is not on PATH, or does not run", "Install Docker 23.0 or later")
        return
    server = _parsed(said.stdout).get("Server")
    version = _version(str(server.get("Version"))) if isinstance(server, dict) else None
    if version is None:
        cure = "Start Docker, or look at DOCKER_HOST and the rights to its socket (docker version)"
        yield error("ENGINE_ABSENT", "docker is here, and its engine does not answer", cure)
        return
    if version < ENGINE:
        said_so = f"Docker's engine is {_dotted(version)}; Cog needs BuildKit as of {_dotted(ENGINE)}"
        yield error("ENGINE_OLD", said_so, "Update Docker to 23.0 or later")
    else:
        yield ok("DOCKER", f"Docker's engine {_dotted(version)} answers")
    buildx = _run(project, ["docker", "buildx", "version"])
    if buildx is None or buildx.returncode:
        cure = "Install docker-buildx-plugin, which Cog's README asks for"
        yield warning("BUILDX_ABSENT", "docker has no buildx", cure)


def _run(project: Project, command: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """What a program says, or None where it is absent or does not answer."""
    program = shutil.which(command[0], path=project.environ.get("PATH", ""))
    if program is None:
        return None
    quiet = {**project.environ, "COG_NO_UPDATE_CHECK": "1"}  # cog would ask its release page first
    try:
        return subprocess.run(
            [program, *command[1:]], env=quiet, capture_output=True, text=True, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _version(text: str) -> tuple[int, ...] | None:
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(map(int, found.group().split("."))) if found else None


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
