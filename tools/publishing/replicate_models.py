"""The latest version of a model on Replicate, through Replicate's own client.

The client reads REPLICATE_API_TOKEN, and REPLICATE_BASE_URL where the API is another.
"""

import os

import httpx
from replicate.client import Client
from replicate.exceptions import ReplicateError
from replicate.version import Version

from snb.errors import SNBError


class ApiSilent(SNBError):
    """Replicate's API could not be asked, or did not say."""

    code = "API_SILENT"


class NoModel(SNBError):
    """There is no such model, or not for this token."""

    code = "MODEL_ABSENT"


def latest(model: str | None) -> Version | None:
    """The latest version of `owner/name`, or None where nothing was pushed yet.

    Raises:
        NoModel: there is none.
        ApiSilent: there is no token, the API did not answer or refused it, or answered something else.
    """
    cure = "Name owner/name and set REPLICATE_API_TOKEN, where Replicate can be reached"
    if not model:
        raise ApiSilent("no owner/name was given", cure)
    if not os.environ.get("REPLICATE_API_TOKEN"):
        raise ApiSilent("REPLICATE_API_TOKEN is not set", cure)
    try:
        return Client().models.get(model).latest_version
    except ReplicateError as error:
        if error.status == 404:
            # Cog pushes to models that exist and makes none, and finds that out after the build.
            create = "If it is new, create it: https://replicate.com/create"
            raise NoModel(f"{model} is not on Replicate, or not for this token", create) from error
        raise ApiSilent(f"Replicate's API answered {error.status}", cure) from error
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:  # whose text may quote the token
        raise ApiSilent(f"Replicate's API did not answer: {type(error).__name__}", cure) from error
