"""What is published as owner/name, through Replicate's own client, and whether its callers are still served.

The client reads REPLICATE_API_TOKEN, and REPLICATE_BASE_URL where the API is another. cog-safe-push compares
only versions that are pushed, after an image build and 10 GB of upload; here predict.py is compared before
anything is built, by the two OpenAPI documents.
"""

import os
from collections.abc import Iterator, Mapping
from math import inf
from operator import gt, lt
from typing import Any

import httpx
from replicate.client import Client
from replicate.exceptions import ReplicateError
from replicate.version import Version

from snb.errors import SNBError
from tools.publishing.finding import Finding
from tools.publishing.project import Project

Part = Mapping[str, Any]
BOUNDS = (("minimum", -inf, gt), ("minLength", 0, gt), ("maximum", inf, lt), ("maxLength", inf, lt))
"""Each with what its absence means, and how a narrower one compares."""


class ApiSilent(SNBError):
    """Replicate's API could not be asked, or did not say."""

    code = "API_SILENT"


class NoModel(SNBError):
    """There is no such model, or not for this token."""

    code = "MODEL_ABSENT"


def latest(model: str | None) -> Version | None:
    """The latest version of `owner/name`, or None where nothing was pushed yet. Raises NoModel, ApiSilent."""
    cure = "Run export REPLICATE_API_TOKEN=…, and scripts/doctor owner/name where there is a network"
    if not model or not os.environ.get("REPLICATE_API_TOKEN"):
        raise ApiSilent("Replicate was not asked what is published", cure)
    try:
        return Client().models.get(model).latest_version
    except ReplicateError as error:
        if error.status == 404:
            # Cog pushes to models that exist and makes none, and finds that out after the build.
            create = "If it is new, create it: https://replicate.com/create"
            raise NoModel(f"{model} is not on Replicate, or not for this token", create) from error
        raise ApiSilent(f"Replicate's API answered {error.status}", cure) from error
    except httpx.ConnectError as error:
        raise ApiSilent("there is no network to Replicate's API", cure) from error
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:  # whose text may quote the token
        raise ApiSilent(f"Replicate's API did not answer: {type(error).__name__}", cure) from error


def inputs(project: Project) -> Iterator[Finding]:
    """Whether every call that the latest version accepts is accepted still."""
    version = latest(project.model)
    text = "every input that is published accepts what it did" if version else "nothing is published yet"
    faults = list(narrowed(version.openapi_schema, project.schema)) if version else []
    yield from faults or [Finding("ok", "INPUTS", text)]


def narrowed(before: Part, after: Part) -> Iterator[Finding]:
    """Every input that refuses what it took; a change of title, description or order is none."""
    old, new = forms(before), forms(after)
    cure = "Callers break: bring it back, as git diff predict.py shows, or run scripts/push with another name"
    for name in sorted(old.keys() - new.keys()):
        yield Finding("error", "INPUT_REMOVED", f"the input {name} was published and is gone", cure)
    for name, form in sorted(new.items()):
        for fault in _faults(old.get(name, {**form, "required": False}), form):
            yield Finding("error", "INPUT_NARROWED", f"input {name}: {fault}", cure)


def _faults(old: Part, new: Part) -> Iterator[str]:
    was, now = old.get("type"), new.get("type")
    if was != now and (was, now) != ("integer", "number"):
        yield f"its type was {was} and is {now}"
        return
    if new["required"] and not old["required"]:
        yield "it is required now"
    if "enum" in new and not {*old.get("enum", [object()])} <= {*new["enum"]}:
        yield f"it took {old.get('enum', 'anything')} and takes {new['enum']}"
    for word, absent, narrower in BOUNDS:
        if narrower(new.get(word, absent), old.get(word, absent)):
            yield f"{word} was {old.get(word, 'none')} and is {new[word]}"


def forms(document: Part) -> dict[str, Part]:
    """Each input, with what it refers to (choices are schemas of their own), and whether it is required."""
    schemas = document["components"]["schemas"]
    inputs: dict[str, Part] = {}
    required = schemas["Input"].get("required", [])
    for name, form in schemas["Input"]["properties"].items():
        for part in form.get("allOf", []):
            form = {**schemas[part["$ref"].rpartition("/")[2]], **form}
        inputs[name] = {**form, "required": name in required}
    return inputs
