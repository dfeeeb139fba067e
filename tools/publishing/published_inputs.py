"""Whether every call that the published version accepts is accepted still, by the two OpenAPI documents.

cog-safe-push compares only versions that are pushed, the new one to a second model, after an image build and
10 GB of upload; it is not on PyPI, and has Claude make and judge its predictions. Here predict.py is compared
before anything is built, and scripts/smoke-test asks the new version.
"""

from collections.abc import Iterator, Mapping
from math import inf
from operator import gt, lt
from typing import Any

from tools.publishing.contract import derived
from tools.publishing.finding import Finding
from tools.publishing.project import Project
from tools.publishing.replicate_models import ApiSilent, NoModel, latest

Part = Mapping[str, Any]
CURE = "Callers break: bring it back, or publish under another name"
BOUNDS = (("minimum", -inf, gt), ("minLength", 0, gt), ("maximum", inf, lt), ("maxLength", inf, lt))
"""Each with what its absence means, and how a narrower one compares."""


def check(project: Project) -> Iterator[Finding]:
    """Compares predict.py with the latest version on Replicate."""
    try:
        version = latest(project.model)
        after = derived(project)
        faults = list(narrowed(version.openapi_schema, after)) if version else []
    except NoModel as failure:
        yield Finding("error", failure.code, "; ".join(failure.faults), failure.cure)
    except ApiSilent as failure:
        text = f"inputs against those published: {'; '.join(failure.faults)}"
        yield Finding("not checked", "INPUTS_UNCOMPARED", text, failure.cure)
    except (KeyError, TypeError, AttributeError):
        text = "the published schema is none of Cog's"
        yield Finding("not checked", "INPUTS_UNCOMPARED", text, "Look at the model's page on Replicate")
    else:
        text = "every input that is published accepts what it did" if version else "nothing is published yet"
        yield from faults or [Finding("ok", "INPUTS", text)]


def narrowed(before: Part, after: Part) -> Iterator[Finding]:
    """Every input that refuses what it took; a change of title, description or order is none.

    Raises:
        KeyError, TypeError, AttributeError: a document is not one of Cog's.
    """
    (old, was_required), (new, is_required) = _inputs(before), _inputs(after)
    for name in sorted(old.keys() - new.keys()):
        yield Finding("error", "INPUT_REMOVED", f"the input {name} was published and is gone", CURE)
    for name in sorted(is_required - was_required):
        yield Finding("error", "INPUT_NARROWED", f"input {name} is required now", CURE)
    for name in sorted(old.keys() & new.keys()):
        for fault in [*_types(old[name], new[name])] or [*_values(old[name], new[name])]:
            yield Finding("error", "INPUT_NARROWED", f"input {name}: {fault}", CURE)


def _types(old: Part, new: Part) -> Iterator[str]:
    kinds = [(one.get("type"), one.get("items", {}).get("type")) for one in (old, new)]
    if kinds[0] != kinds[1] and kinds != [("integer", None), ("number", None)]:
        was, now = (" of ".join(map(str, filter(None, kind))) for kind in kinds)
        yield f"its type was {was} and is {now}"


def _values(old: Part, new: Part) -> Iterator[str]:
    if old.get("nullable") and not new.get("nullable"):
        yield "it was nullable"
    if "enum" in new and not {*old.get("enum", [object()])} <= {*new["enum"]}:
        yield f"it took {old.get('enum', 'anything')} and takes {new['enum']}"
    for word, absent, narrower in BOUNDS:
        if narrower(new.get(word, absent), old.get(word, absent)):
            yield f"{word} was {old.get(word, 'none')} and is {new[word]}"


def _inputs(document: Part) -> tuple[dict[str, Part], set[str]]:
    """Each input, with what it refers to in place of the reference (choices are schemas of their own), and
    the names of those that are required."""
    schemas = document["components"]["schemas"]
    inputs = {}
    for name, form in schemas["Input"]["properties"].items():
        for part in form.get("allOf", []):
            form = {**schemas[part["$ref"].rpartition("/")[2]], **form}
        inputs[name] = form
    return inputs, {*schemas["Input"].get("required", [])}
