"""What is published as owner/name, through Replicate's own client.

The client reads REPLICATE_API_TOKEN, and REPLICATE_BASE_URL for another API. Whether a version still accepts
the inputs of the one before is not checked: callers name the version, and cog-safe-push compares two.
"""

import os
from collections.abc import Iterator

import httpx
from replicate.client import Client
from replicate.exceptions import ReplicateError
from replicate.version import Version

from snb.errors import SNBError
from tools.publishing.finding import Finding
from tools.publishing.project import Project


class ApiSilent(SNBError):
    """Replicate's API could not be asked, or did not answer."""

    code = "API_SILENT"


class NoModel(SNBError):
    """There is no such model, or this token may not see it."""

    code = "MODEL_ABSENT"


def latest(model: str | None) -> Version | None:
    """The latest version of `owner/name`, or None if there is none yet. Raises NoModel, ApiSilent."""
    cure = "Run export REPLICATE_API_TOKEN=…, and scripts/doctor owner/name where there is a network"
    if not model or not os.environ.get("REPLICATE_API_TOKEN"):
        raise ApiSilent("Replicate was not asked what is published", cure)
    try:
        return Client().models.get(model).latest_version
    except ReplicateError as error:
        if error.status == 404:
            create = "If it is new, create it: https://replicate.com/create"
            raise NoModel(f"{model} is not on Replicate, or not for this token", create) from error
        raise ApiSilent(f"Replicate's API answered {error.status}", cure) from error
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:  # their text may quote the token
        raise ApiSilent(f"Replicate's API did not answer: {type(error).__name__}", cure) from error


def model(project: Project) -> Iterator[Finding]:
    """Whether the model exists and this token may see it; Cog finds out only after the build."""
    version = latest(project.model)
    text = f"the latest version is {version.id}" if version else "there is no version yet"
    yield Finding("ok", "MODEL", text)
