"""Whether every call that the published version accepts is accepted still."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from snb.errors import SNBError
from tools.publishing.contract import derived
from tools.publishing.finding import Finding, error, ok, unchecked, unread, warning
from tools.publishing.narrowing import narrowed, removed
from tools.publishing.project import Project
from tools.publishing.replicate_models import Models, NoModel, Unknown

CURE = "Callers break: bring it back, or publish under another name"
AGAIN = "Set REPLICATE_API_TOKEN and name owner/name where Replicate can be reached, or give --published FILE"


def check(project: Project) -> Iterator[Finding]:
    """Compares predict.py with what callers know."""
    try:
        before = _published(project)
    except NoModel as failure:
        # Cog pushes to models that exist and makes none.
        yield warning("MODEL_ABSENT", str(failure), "If it is new, create it: https://replicate.com/create")
        return
    except Unknown as failure:
        yield unchecked("INPUTS_UNCOMPARED", f"inputs against those published: {failure}", AGAIN)
        return
    if before is None:
        yield ok("INPUTS", f"{project.model} has no version yet, so nobody depends on its inputs")
        return
    try:
        after = derived(project)
    except SNBError as failure:
        yield unread("INPUTS_UNCOMPARED", "inputs against those published", failure)
        return
    yield from _compared(before, after)


def _published(project: Project) -> Mapping[str, Any] | None:
    """The schema of the file, or of the latest version; None where there is none.

    Raises:
        Unknown, NoModel: see `Models`; or the file cannot be read.
    """
    if project.published:
        try:
            found = json.loads(project.published.read_text(encoding="utf-8"))
            # As the API hands it out: a model, a version, or the document alone.
            found = found.get("latest_version", found)
            return dict(found.get("openapi_schema", found))
        except (OSError, ValueError, AttributeError, TypeError) as failure:
            raise Unknown(f"{project.published.name} is no schema: {type(failure).__name__}") from failure
    if project.model is None:
        raise Unknown("no owner/name was given")
    version = Models(project.environ).latest(project.model)
    return version.schema if version else None


def _compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        gone, less = removed(before, after), list(narrowed(before, after))
    except (KeyError, TypeError, AttributeError, ValueError) as failure:
        said = f"the published schema is none of Cog's: {type(failure).__name__}"
        yield unchecked("INPUTS_UNCOMPARED", said, AGAIN)
        return
    yield from (error("INPUT_REMOVED", f"the input {name} was published and is gone", CURE) for name in gone)
    yield from (error("INPUT_NARROWED", f"input {fault}", CURE) for fault in less)
    if not gone and not less:
        yield ok("INPUTS", "every input that is published accepts what it did")
