"""Publishes this project on Replicate as owner/name, if scripts/doctor finds nothing wrong with it.

scripts/push owner/name --hardware t4

Runs the checks of scripts/doctor; stops at an error or at what could not be checked, but not at a warning.
Then runs `cog push`, with --separate-weights if the image has weights, and scripts/smoke-test on the result.
Needs `cog login` and REPLICATE_API_TOKEN. The only line on stdout is the id of the new version, if it works;
all else goes to stderr. Exits with 1 if it does not.
"""

import contextlib
import subprocess
import sys
import time

from snb.errors import SNBError
from tools.command import say
from tools.publishing import doctor
from tools.publishing.installed import REGISTRY
from tools.publishing.project import Project
from tools.publishing.published import ApiSilent, latest

WAIT = 300.0
"""Seconds for the new version to appear once the image is pushed."""
PAUSE = 2.0
"""Seconds between two looks at the latest version."""


class NotPublished(SNBError):
    """The push gave no version that is known to work; the text says what is there now."""

    code = "NOT_PUBLISHED"


def main() -> int:
    project = doctor.options(__doc__)
    # What could not be checked may be broken, and a push cannot be taken back.
    if {"error", "not checked"} & doctor.report(project, say):
        say("Nothing was pushed.")
        return 1
    print(publish(project))
    return 0


def publish(project: Project) -> str:
    """Pushes a project that has passed every check; returns the id of the new version, which works.

    Raises NotPublished, and ApiSilent or NoModel before anything was pushed.
    """
    model = str(project.model)
    published = latest(model)
    before = published.id if published else None
    apart = ["--separate-weights"] if project.sent_weights else []
    if code := project.context.cog("push", f"{REGISTRY}/{model}", *apart):
        fault = f"cog push ended with {code}; the latest version is still {before or 'none'}"
        raise NotPublished(fault, "Cure what its last lines name, and run scripts/push again")
    version = _new(model, before)
    say(f"{model}:{version} is there; asking it …")
    smoke_test = project.root / "scripts" / "smoke-test"
    if subprocess.run([smoke_test, f"{model}:{version}"], stdout=sys.stderr).returncode:
        back = f"call {model}:{before}" if before else "there is no version to go back to"
        fault = f"{model}:{version} is published and fails the smoke test"
        raise NotPublished(fault, f"Meanwhile, {back}; repair, and push again")
    return version


def _new(model: str, before: str | None) -> str:
    """The id of the new version, awaited for WAIT seconds. An API that is silent meanwhile is asked again."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        with contextlib.suppress(ApiSilent):
            version = latest(model)
            if version and version.id != before:
                return version.id
        time.sleep(PAUSE)
    fault = f"the image is pushed, and after {WAIT:.0f} s the latest version is still {before or 'none'}"
    cure = "An image that has not changed makes no version; else look at the model's page on Replicate"
    raise NotPublished(fault, cure)
