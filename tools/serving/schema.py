"""Derives the schema by which Cog's server validates inputs from the source of predict.py, without imports.

`python -m tools.serving.schema` writes .cog/openapi_schema.json, which the server needs without `cog build`;
the content equals what `cog build` derives. Cog reads literals as text, and silently drops or garbles any
that is not plain: an f-string, joined strings, an escape, parentheses, a name as a bound. Here that fails.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from snb.errors import SNBError
from snb.settings import ROOT

Part = dict[str, Any]
Method = ast.FunctionDef | ast.AsyncFunctionDef

TYPES: dict[str, Part] = {
    "bool": {"type": "boolean"},
    "dict": {"type": "object"},
    "float": {"type": "number"},
    "int": {"type": "integer"},
    "str": {"type": "string"},
    "Secret": {"type": "string", "format": "password", "writeOnly": True, "x-cog-secret": True},
}
VALUES: dict[str, tuple[type, ...]] = {
    "array": (list,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
}
"""The Python types of a default of each JSON type; an object has none that is supported."""
KEYWORDS = {
    "choices": ("enum", (list,)),
    "default": ("default", (bool, int, float, str, list, type(None))),
    "description": ("description", (str,)),
    "ge": ("minimum", (int, float)),
    "le": ("maximum", (int, float)),
    "min_length": ("minLength", (int,)),
    "max_length": ("maxLength", (int,)),
}
"""Keywords of `Input(...)`: their names in the schema, and the types of their literals."""
OUTPUT = "ConcatenateIterator[str]"
STREAMING = ("streaming", "cog.streaming")
DECORATORS = (*STREAMING, "concurrent", "cog.concurrent")

_ATOM = r"""(?:"[^"\\\n]*"|'[^'\\\n]*'|-?\d{1,15}(?:\.\d{1,15})?|True|False|None)"""
PLAIN = re.compile(rf"\w+\s*=\s*(?:{_ATOM}|\[\s*(?:{_ATOM}\s*,\s*)*{_ATOM}?\s*\])")
"""`name=literal` in a form that means the same to Python and to Cog, which unescapes nothing."""


class BadContract(SNBError):
    """A part of `predict`'s declaration would not reach the schema as it is written."""

    code = "BAD_CONTRACT"


def write(root: Path) -> Path:
    """Writes `root/.cog/openapi_schema.json` from `root/cog.yaml` and the file that its `predict` names.

    `cog build` writes its own version into the schema; here `build.sdk_version` is, the same release.

    Raises:
        BadContract: every fault found, each with its parameter.
    """
    config = yaml.safe_load((root / "cog.yaml").read_text(encoding="utf-8"))
    file, class_name = config["predict"].split(":")
    source = (root / file).read_text(encoding="utf-8")
    schema = derive(source, class_name, version=config["build"]["sdk_version"])
    path = root / ".cog" / "openapi_schema.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(schema, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return path


def derive(source: str, class_name: str, version: str) -> Part:
    """The OpenAPI 3.0.2 document of `class_name.predict` as declared in `source`.

    Raises:
        BadContract: every fault found, each with its parameter.
    """
    method = _method(source, class_name)
    parameters = _parameters(method)
    faults = list(_method_faults(method))
    for parameter, given in parameters:
        faults += [f"{parameter.arg}: {fault}" for fault in _faults(parameter, given, source)]
    if faults:
        raise BadContract(faults, "Declare each input as Input(...) with plain one-line literals")
    schemas = _schemas([(p.arg, _type(p.annotation) or {}, _words(given)) for p, given in parameters])
    streams = any(_name(decorator) in STREAMING for decorator in method.decorator_list)
    return _document(schemas, streams, version)


def _method(source: str, class_name: str) -> Method:
    for outer in ast.parse(source).body:
        if isinstance(outer, ast.ClassDef) and outer.name == class_name:
            for node in outer.body:
                if isinstance(node, Method) and node.name == "predict":
                    return node
    raise BadContract(f"{class_name}.predict is not there", 'Write predict: "FILE:CLASS" into cog.yaml')


def _parameters(method: Method) -> list[tuple[ast.arg, ast.expr | None]]:
    """Every parameter after `self`, with its default as written."""
    names, given = [*method.args.posonlyargs, *method.args.args][1:], method.args.defaults
    return list(zip(names, [*[None] * (len(names) - len(given)), *given], strict=True))


def _name(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)


def _type(annotation: ast.expr | None) -> Part | None:
    """The JSON type of an annotation; like Cog it ignores the types of a dict's keys and values."""
    match annotation:
        case (
            ast.BinOp(left=inner, op=ast.BitOr(), right=ast.Constant(value=None))
            | ast.Subscript(value=ast.Name(id="Optional"), slice=inner)
        ):
            kind = _type(inner)
            return kind and {**kind, "nullable": True}
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            items = _type(inner)
            single = items and items["type"] != "array" and "nullable" not in items
            return {"type": "array", "items": items} if single else None
        case ast.Name(id=name) | ast.Subscript(value=ast.Name(id="dict" as name)):
            return TYPES.get(name)
    return None


def _words(given: ast.expr | None) -> Part:
    """The keywords of `Input(...)`, by their names in the schema."""
    assert isinstance(given, ast.Call)
    return {KEYWORDS[word.arg or ""][0]: ast.literal_eval(word.value) for word in given.keywords}


def _method_faults(method: Method) -> Iterator[str]:
    arguments = method.args
    if arguments.posonlyargs or arguments.kwonlyargs or arguments.vararg or arguments.kwarg:
        yield "predict: its parameters must be plain ones, without / and *"
    if method.returns is None or ast.unparse(method.returns) != OUTPUT:
        yield f"predict: its output must be annotated {OUTPUT}"
    for decorator in method.decorator_list:
        if _name(decorator) not in DECORATORS:
            yield f"predict: the decorator {_name(decorator)} is not one of {', '.join(DECORATORS)}"


def _faults(parameter: ast.arg, given: ast.expr | None, source: str) -> Iterator[str]:
    """What Cog would refuse, drop or garble of one parameter."""
    kind = _type(parameter.annotation)
    if kind is None:
        shown = ast.unparse(parameter.annotation) if parameter.annotation else "none"
        yield f"the annotation ({shown}) is not supported"
    if not isinstance(given, ast.Call) or ast.unparse(given.func) != "Input" or given.args:
        yield "it must be declared as Input(...) with named arguments"
        return
    faults = [fault for word in given.keywords for fault in _word_faults(word, source)]
    yield from faults
    if kind and not faults:
        yield from _value_faults(kind, _words(given))


def _word_faults(word: ast.keyword, source: str) -> Iterator[str]:
    if word.arg not in KEYWORDS:
        yield f"{word.arg or '**'} is not one of {', '.join(KEYWORDS)}"
    elif not PLAIN.fullmatch(ast.get_source_segment(source, word) or ""):
        yield f"{word.arg} is not a plain literal"
    elif type(ast.literal_eval(word.value)) not in KEYWORDS[word.arg][1]:
        yield f"{word.arg} is a literal of the wrong type"


def _value_faults(kind: Part, words: Part) -> Iterator[str]:
    """Faults that only show here: the server compares neither defaults nor choices with the annotation."""
    allowed = VALUES.get(kind["type"], ())
    choices = words.get("enum", [])
    if "enum" in words and (not choices or kind not in (TYPES["int"], TYPES["str"])):
        yield "choices are for int and str, and not empty"
    elif not all(type(choice) in allowed for choice in choices):
        yield "choices are not of the annotated type"
    if words.get("default", ...) is None and "nullable" not in kind:
        yield "a default of None needs an annotation that ends in | None"
    elif words.get("default") is not None and type(words["default"]) not in allowed:
        yield "default is not of the annotated type"


def _schemas(inputs: list[tuple[str, Part, Part]]) -> Part:
    """Input, Output, and one schema for each input with choices, which Cog names after the input."""
    properties: Part = {}
    enums: Part = {}
    for order, (name, kind, words) in enumerate(inputs):
        if "enum" in words:
            enums[name] = {"title": name, "description": "An enumeration.", **kind, "enum": words.pop("enum")}
            form: Part = {"allOf": [{"$ref": f"#/components/schemas/{name}"}]}
        else:
            form = {"title": " ".join(word[:1].upper() + word[1:] for word in name.split("_")), **kind}
        properties[name] = {"x-order": order, **form, **words}
    required = [name for name, kind, words in inputs if "default" not in words and "nullable" not in kind]
    shown = {"x-cog-array-type": "iterator", "x-cog-array-display": "concatenate"}
    return {
        "Input": {"title": "Input", "type": "object", "properties": properties}
        | ({"required": required} if required else {}),
        "Output": {"title": "Output", "type": "array", "items": TYPES["str"], **shown},
        **enums,
    }


def _document(schemas: Part, streams: bool, version: str) -> Part:
    document: Part = json.loads(ENVELOPE)
    document["info"]["version"] = version
    if streams:
        document["paths"]["/predictions"]["post"]["x-cog-streaming"] = True
    document["components"]["schemas"] = schemas | document["components"]["schemas"]
    return document


ENVELOPE = """
{
  "openapi": "3.0.2",
  "info": {"title": "Cog"},
  "paths": {
    "/": {"get": {"summary": "Root", "operationId": "root__get", "responses": {
      "200": {"description": "Successful Response", "content": {"application/json": {"schema": {}}}}}}},
    "/health-check": {"get": {
      "summary": "Healthcheck", "operationId": "healthcheck_health_check_get", "responses": {
      "200": {"description": "Successful Response", "content": {"application/json": {"schema": {}}}}}}},
    "/predictions": {"post": {
      "summary": "Predict", "description": "Run a single prediction on the model",
      "operationId": "predict_predictions_post",
      "requestBody": {"content": {"application/json": {
        "schema": {"$ref": "#/components/schemas/PredictionRequest"}}}},
      "responses": {
        "200": {"description": "Successful Response", "content": {"application/json": {
          "schema": {"$ref": "#/components/schemas/PredictionResponse"}}}},
        "422": {"description": "Validation Error", "content": {"application/json": {
          "schema": {"$ref": "#/components/schemas/HTTPValidationError"}}}}}}},
    "/predictions/{prediction_id}/cancel": {"post": {
      "summary": "Cancel", "operationId": "cancel_predictions__prediction_id__cancel_post",
      "parameters": [{"in": "path", "name": "prediction_id", "required": true,
        "schema": {"title": "Prediction Id", "type": "string"}}],
      "responses": {
        "200": {"description": "Successful Response", "content": {"application/json": {"schema": {}}}},
        "422": {"description": "Validation Error", "content": {"application/json": {
          "schema": {"$ref": "#/components/schemas/HTTPValidationError"}}}}}}}
  },
  "components": {"schemas": {
    "PredictionRequest": {"title": "PredictionRequest", "type": "object", "properties": {
      "id": {"title": "Id", "type": "string"},
      "input": {"$ref": "#/components/schemas/Input"}}},
    "PredictionResponse": {"title": "PredictionResponse", "type": "object", "properties": {
      "input": {"$ref": "#/components/schemas/Input"},
      "output": {"$ref": "#/components/schemas/Output"},
      "id": {"title": "Id", "type": "string"},
      "version": {"title": "Version", "type": "string"},
      "created_at": {"title": "Created At", "type": "string", "format": "date-time"},
      "started_at": {"title": "Started At", "type": "string", "format": "date-time"},
      "completed_at": {"title": "Completed At", "type": "string", "format": "date-time"},
      "status": {"title": "Status", "type": "string"},
      "error": {"title": "Error", "type": "string"},
      "logs": {"title": "Logs", "type": "string"},
      "metrics": {"title": "Metrics", "type": "object"}}},
    "Status": {"title": "Status", "description": "An enumeration.", "type": "string",
      "enum": ["starting", "processing", "succeeded", "canceled", "failed"]},
    "HTTPValidationError": {"title": "HTTPValidationError", "type": "object", "properties": {
      "detail": {"title": "Detail", "type": "array",
        "items": {"$ref": "#/components/schemas/ValidationError"}}}},
    "ValidationError": {"title": "ValidationError", "type": "object", "required": ["loc", "msg", "type"],
      "properties": {
        "loc": {"title": "Location", "type": "array",
          "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
        "msg": {"title": "Message", "type": "string"},
        "type": {"title": "Error Type", "type": "string"}}}
  }}
}
"""
"""The same for every predictor: paths, envelopes and errors, as `cog build` 0.23 writes them."""


if __name__ == "__main__":
    try:
        print(write(ROOT))
    except BadContract as error:
        raise SystemExit(str(error)) from error
