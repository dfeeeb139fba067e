"""What Replicate's API says of a body that does not fit: every fault at once, before anything is created.

The wording is that of https://github.com/xeipuuv/gojsonschema, as https://api.replicate.com gives it:
`{"title": "Input validation failed", "detail": "- input: prompt is required\\n", "invalid_fields": […]}`.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
BOUNDS: dict[str, tuple[str, str, Callable[[Any, Any], bool]]] = {
    "minimum": ("number_gte", "Must be greater than or equal to {}", lambda value, bound: value >= bound),
    "maximum": ("number_lte", "Must be less than or equal to {}", lambda value, bound: value <= bound),
    "minLength": (
        "string_gte",
        "String length must be greater than or equal to {}",
        lambda value, bound: len(value) >= bound,
    ),
    "maxLength": (
        "string_lte",
        "String length must be less than or equal to {}",
        lambda value, bound: len(value) <= bound,
    ),
}
PROPERTIES = {
    "input": {"type": "object"},
    "stream": {"type": "boolean"},
    "webhook": {"type": "string"},
    "webhook_events_filter": {"type": "array"},
}
REQUEST = {
    "type": "object",
    "required": ["input"],
    "additionalProperties": False,
    "properties": PROPERTIES,
}
"""A prediction of an official model or a deployment: https://replicate.com/docs/reference/http#models.predictions.create"""
VERSION_REQUEST = {
    **REQUEST,
    "required": ["version", "input"],
    "properties": {**PROPERTIES, "version": {"type": "string"}},
}
"""A prediction of a version: https://replicate.com/docs/reference/http#predictions.create"""


@dataclass(frozen=True)
class Fault:
    """One thing wrong; `field` is empty for the body itself."""

    type: str
    field: str
    description: str

    def __str__(self) -> str:
        return f"- {self.field}: {self.description}\n" if self.field else f"- {self.description}\n"


def faults(value: Any, schema: dict[str, Any], schemas: dict[str, Any], field: str = "") -> Iterator[Fault]:
    """All that is wrong with `value`; `schemas` is what a `$ref` names."""
    for part in schema.get("allOf", []):
        yield from faults(value, schemas[part["$ref"].rsplit("/", 1)[1]], schemas, field)
    kind = schema.get("type", "")
    if value is None and schema.get("nullable"):
        return
    if kind and not fits(value, kind):
        yield Fault("invalid_type", field, f"Invalid type. Expected: {kind}, given: {named(value)}")
        return
    yield from limits(value, schema, field)
    if kind == "object":
        yield from members(value, schema, schemas, field)
    elif kind == "array":
        for index, item in enumerate(value):
            yield from faults(item, schema.get("items", {}), schemas, f"{field}.{index}")


def limits(value: Any, schema: dict[str, Any], field: str) -> Iterator[Fault]:
    """What is wrong with a value of the right type."""
    if value not in schema.get("enum", [value]):
        allowed = ", ".join(json.dumps(choice) for choice in schema["enum"])
        yield Fault("enum", field, f"{field.split('.')[-1]} must be one of the following: {allowed}")
    for word, (name, text, holds) in BOUNDS.items():
        if word in schema and not holds(value, schema[word]):
            yield Fault(name, field, text.format(schema[word]))


def members(value: Any, schema: dict[str, Any], schemas: dict[str, Any], field: str) -> Iterator[Fault]:
    """What is wrong with an object's properties."""
    known = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            yield Fault("required", field, f"{name} is required")
    for name, member in value.items():
        if name in known:
            yield from faults(member, known[name], schemas, f"{field}.{name}".lstrip("."))
        elif schema.get("additionalProperties") is False:
            text = f"Additional property {name} is not allowed"
            yield Fault("additional_property_not_allowed", field, text)


def fits(value: Any, kind: str) -> bool:
    """Whether a JSON value is of a type; true and false are no numbers, and 1.0 is an integer."""
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, TYPES[kind]) or (
        kind == "integer" and isinstance(value, float) and value.is_integer()
    )


def named(value: Any) -> str:
    """The JSON type of a value."""
    return next((name for name in TYPES if fits(value, name)), "null")
