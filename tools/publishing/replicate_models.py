"""Models and their versions on Replicate: https://replicate.com/docs/reference/http#models.get"""

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?/[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)
ADDRESS = "https://api.replicate.com"
ADDRESS_NAMES = ("REPLICATE_BASE_URL", "REPLICATE_API_BASE_URL")
"""Replicate's Python client reads the first, the JavaScript client of client/ the second."""
SECONDS = 30
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Unknown(Exception):
    """The API could not be asked, or did not say; the text is the reason."""


class NoModel(Exception):
    """There is no such model, or not for this token."""


@dataclass(frozen=True)
class Version:
    """One version of a model."""

    id: str
    schema: Mapping[str, Any]
    """Its OpenAPI document."""


class Models:
    """Replicate's API as one account sees it.

    Args:
        environ: holds REPLICATE_API_TOKEN, and the API's address where it is another.

    Raises:
        Unknown: there is no token, or one that cannot be sent.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        token = environ.get("REPLICATE_API_TOKEN", "")
        if not token:
            raise Unknown("REPLICATE_API_TOKEN is not set")
        if not (token.isascii() and token.isprintable() and " " not in token):
            raise Unknown("REPLICATE_API_TOKEN has a character that no token has")
        given = address(environ) or ADDRESS
        self._client = httpx2.Client(
            base_url=given.rstrip("/").removesuffix("/v1"),
            headers={
                "Authorization": f"Bearer {token}",
                "User-Agent": f"doctor (Python {platform.python_version()})",
            },
            timeout=SECONDS,
            trust_env=urlsplit(given).hostname not in LOOPBACK,  # no proxy on the way to this machine
        )

    def latest(self, model: str) -> Version | None:
        """The latest version of `owner/name`, or None where nothing was pushed yet.

        Raises:
            NoModel: there is none.
            Unknown: the API did not answer, refused the token, or answered something else.
        """
        try:
            reply = self._client.get(f"/v1/models/{model}")
            if reply.status_code == 404:
                raise NoModel(f"{model} is not on Replicate, or not for this token")
            if not reply.is_success:
                raise Unknown(f"Replicate's API answered {reply.status_code}")
            found = reply.json()["latest_version"]
            return Version(str(found["id"]), found["openapi_schema"]) if found else None
        except httpx2.HTTPError as error:
            raise Unknown(f"Replicate's API did not answer: {type(error).__name__}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise Unknown("Replicate's API answered something else than a model") from error


def address(environ: Mapping[str, str]) -> str | None:
    """Where the API is, if it is not Replicate's own."""
    return next((environ[name] for name in ADDRESS_NAMES if environ.get(name)), None)
