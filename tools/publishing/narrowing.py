"""Ways in which inputs accept less than before, from two OpenAPI documents: what breaks callers."""

from collections.abc import Iterator, Mapping
from typing import Any

Part = Mapping[str, Any]

LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
WIDER = {("integer", "number")}
"""Types of which every value is one of the other."""


def removed(before: Part, after: Part) -> list[str]:
    """Names of inputs that are no more."""
    return sorted(_properties(before).keys() - _properties(after).keys())


def narrowed(before: Part, after: Part) -> Iterator[str]:
    """Every input that refuses what it took, with how; a change of title, description or order is none.

    Raises:
        KeyError, TypeError, AttributeError: a document is not one of Cog's.
    """
    old, new = _properties(before), _properties(after)
    was_required, is_required = _required(before), _required(after)
    for name in sorted(new):
        if name in is_required - was_required:
            yield f"{name} is required now" + ("" if name in old else ", and is new")
        if name not in old:
            continue
        had_default = old[name].get("default") is not None
        if had_default and "default" not in new[name] and name not in is_required:
            yield f"{name} has lost its default"
        for fault in _forms(old[name], new[name]):
            yield f"{name}: {fault}"


def _forms(old: Part, new: Part) -> Iterator[str]:
    """What one input, or an item of it, does not accept any more."""
    kinds = old.get("type"), new.get("type")
    if kinds[1] is not None and kinds[0] != kinds[1] and kinds not in WIDER:
        yield f"its type was {kinds[0]} and is {kinds[1]}"
        return
    if old.get("nullable") and not new.get("nullable"):
        yield "it was nullable"
    yield from _choices(old, new)
    for word in (*LOWER, *UPPER):
        if _tighter(word, old, new):
            yield f"{word} was {old.get(word, 'none')} and is {new[word]}"
    if "pattern" in new and new["pattern"] != old.get("pattern"):
        yield "it has another pattern"
    if new.get("format") == "uri" != old.get("format"):
        yield "it is a file now"
    items = _forms(old.get("items", {}), new["items"]) if "items" in new else ()
    yield from (f"each item: {fault}" for fault in items)


def _choices(old: Part, new: Part) -> Iterator[str]:
    if "enum" not in new:
        return
    if "enum" not in old:
        yield f"it was free and has choices: {', '.join(map(str, new['enum']))}"
    elif gone := [str(choice) for choice in old["enum"] if choice not in new["enum"]]:
        yield f"it has lost choices: {', '.join(gone)}"


def _tighter(word: str, old: Part, new: Part) -> bool:
    if word in LOWER:
        return _bound(new, word, -1) > _bound(old, word, -1)
    return _bound(new, word, 1) < _bound(old, word, 1)


def _bound(form: Part, word: str, sign: int) -> float:
    """A bound, or what none means: a length has 0 below by itself."""
    if form.get(word) is not None:
        return float(form[word])
    return 0.0 if word in ("minLength", "minItems") else sign * float("inf")


def _input(document: Part) -> Part:
    found: Part = document["components"]["schemas"]["Input"]
    return found


def _required(document: Part) -> set[str]:
    return set(_input(document).get("required", []))


def _properties(document: Part) -> dict[str, Part]:
    """Each input, with what it refers to in place of the reference."""
    schemas = document["components"]["schemas"]
    return {name: _plain(form, schemas) for name, form in _input(document).get("properties", {}).items()}


def _plain(form: Part, schemas: Part) -> Part:
    found: dict[str, Any] = {}
    for part in [*form.get("allOf", []), *([form] if "$ref" in form else [])]:
        found |= schemas[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
    found |= {word: value for word, value in form.items() if word not in ("allOf", "$ref")}
    if "items" in found:
        found["items"] = _plain(found["items"], schemas)
    return found
