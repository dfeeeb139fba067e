"""One push to Replicate: the image, its version, and the smoke test of that version."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from snb.errors import SNBError
from tools.publishing.project import Project
from tools.publishing.registry_login import REGISTRY
from tools.publishing.replicate_models import ADDRESS_NAMES, Models, NoModel, Unknown, address
from tools.publishing.staging import staged

FIRST, LONGEST = 0.5, 10.0
"""Seconds between two looks at the latest version; they double."""


class NotPublished(SNBError):
    """No version that is known to work came of it; the text says what is there now."""

    code = "NOT_PUBLISHED"


def publish(project: Project, smoke_test: Path, patience: float) -> str:
    """Pushes a project that has passed every check, and gives back the id of the version that works.

    Args:
        project: with the name of a model on Replicate.
        smoke_test: the program that asks a version; it ends with 0 if the answers are right.
        patience: seconds to wait for the new version once the image is pushed.

    Raises:
        NotPublished: Replicate's API is silent, the push failed, no version came of it, or it is bad.
    """
    assert project.model
    latest = _latest(project)
    before = latest()
    _push(project, before)
    version = _new(latest, before, patience)
    named = f"{project.model}:{version}"
    say(f"{named} is there; asking it …")
    if _fails(smoke_test, named, project):
        raise NotPublished(f"{named} is published and fails the smoke test", _back(project.model, before))
    return version


def _fails(smoke_test: Path, named: str, project: Project) -> bool:
    """Asks the version where it was published, whichever name says where that is."""
    place = address(project.environ)
    environ = {**project.environ, **(dict.fromkeys(ADDRESS_NAMES, place) if place else {})}
    return subprocess.run([str(smoke_test), named], env=environ, stdout=sys.stderr).returncode != 0


def say(line: str) -> None:
    """Progress, on stderr: stdout has the version alone."""
    print(line, file=sys.stderr, flush=True)


def _latest(project: Project) -> Callable[[], str | None]:
    """Asks for the id of the latest version, None where there is none."""
    try:
        models = Models(project.environ)
    except Unknown as failure:
        raise _silent(failure) from failure

    def ask() -> str | None:
        try:
            version = models.latest(str(project.model))
        except NoModel:
            return None
        except Unknown as failure:
            raise _silent(failure) from failure
        return version.id if version else None

    return ask


def _silent(failure: Unknown) -> NotPublished:
    return NotPublished(
        str(failure),
        "Check REPLICATE_API_TOKEN and the network: only the API knows which version a push has made",
    )


def _push(project: Project, before: str | None) -> None:
    """Runs Cog where there is nothing but what was checked."""
    cog = shutil.which("cog", path=project.environ.get("PATH", ""))
    assert cog  # a check has run it
    apart = ["--separate-weights"] if project.weights.names else []
    command = [cog, "push", f"{REGISTRY}/{project.model}", *apart]
    say(f"cog {' '.join(command[1:])}")
    with staged(project.context) as folder:
        done = subprocess.run(command, cwd=folder, env=dict(project.environ), stdout=sys.stderr)
    if done.returncode:
        now = f"the latest version is still {before}" if before else "there is no version yet"
        raise NotPublished(
            f"cog push ended with {done.returncode}; {now}",
            "Cure what its last lines name, and run scripts/push again",
        )


def _new(latest: Callable[[], str | None], before: str | None, patience: float) -> str:
    """The version that was not there before. An API that is silent meanwhile is asked again."""
    end, pause = time.monotonic() + patience, FIRST
    while True:
        with suppress(NotPublished):
            found = latest()
            if found and found != before:
                return found
        if time.monotonic() + pause > end:
            break
        time.sleep(pause)
        pause = min(LONGEST, 2 * pause)
    raise NotPublished(
        f"the image is pushed, and after {patience:.0f} s the latest version is still {before or 'none'}",
        "An image that has not changed makes no version; else look at the model's page on Replicate",
    )


def _back(model: str, before: str | None) -> str:
    if before is None:
        return "There is no version to go back to: repair this one and push again"
    return (
        f"Whoever calls the latest gets it. To go back: call {model}:{before} (in a deployment, choose that "
        "version), and push again once it is repaired"
    )
