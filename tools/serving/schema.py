"""Derives the schema by which Cog's server validates inputs, from the source of predict.py, without imports.

Otherwise only `cog build` writes it: the Python packages of cog 0.23 have no generator. Cog reads literals as
text, and silently drops or garbles any that is not plain: an f-string, joined strings, an escape,
parentheses, a name as a bound. Here these are errors.
"""

import ast
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from snb.errors import SNBError

Part = dict[str, Any]

TYPES = {"bool": "boolean", "dict": "object", "float": "number", "int": "integer", "str": "string"}
KEYWORDS = {
    "choices": "enum",
    "default": "default",
    "description": "description",
    "ge": "minimum",
    "le": "maximum",
    "min_length": "minLength",
    "max_length": "maxLength",
}
"""Keywords of `Input(...)`, and their names in the schema."""
OUTPUT = {
    "title": "Output",
    "type": "array",
    "items": {"type": "string"},
    "x-cog-array-type": "iterator",
    "x-cog-array-display": "concatenate",
}

_ATOM = r"""(?:"[^"\\\n]*"|'[^'\\\n]*'|-?\d{1,15}(?:\.\d{1,15})?|True|False|None)"""
PLAIN = re.compile(rf"\w+\s*=\s*(?:{_ATOM}|\[\s*(?:{_ATOM}\s*,\s*)*{_ATOM}?\s*\])")
"""`name=literal` in a form that means the same to Python and to Cog, which resolves no escapes."""


class BadContract(SNBError):
    """Part of `predict`'s declaration would not reach the schema as it is written."""

    code = "BAD_CONTRACT"


def write(root: Path) -> Path:
    """Writes `root/.cog/openapi_schema.json` from the file that `predict` in `root/cog.yaml` names; its path.

    Raises:
        BadContract: see `derive`.
    """
    config = yaml.safe_load((root / "cog.yaml").read_text(encoding="utf-8"))
    file, class_name = config["predict"].split(":")
    source = (root / file).read_text(encoding="utf-8-sig")
    path = root / ".cog" / "openapi_schema.json"
    path.parent.mkdir(exist_ok=True)
    schema = derive(source, class_name, config["build"]["sdk_version"])
    partial = path.with_name(f"{path.name}.{os.getpid()}")  # another server here may be reading it
    partial.write_text(json.dumps(schema, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def derive(source: str, class_name: str, version: str) -> Part:
    """The inputs and the output of `class_name.predict` as `cog build` describes them in OpenAPI 3.0.2.

    It has only the one path that coglet reads, which says whether predictions can be streamed.

    Raises:
        BadContract: every fault found, each with its parameter.
    """
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    body = [node for one in classes if one.name == class_name for node in one.body]
    methods = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    method = next((one for one in methods if one.name == "predict"), None)
    if not method:
        raise BadContract(f"{class_name}.predict is not there", 'Write predict: "FILE:CLASS" into cog.yaml')
    parameters, given = method.args.args[1:], method.args.defaults
    pairs = list(zip(parameters, [*[None] * (len(parameters) - len(given)), *given], strict=True))
    found = [f"{one.arg}: {fault}" for one, value in pairs for fault in faults(one, value, source)]
    if method.returns is None or ast.unparse(method.returns) != "ConcatenateIterator[str]":
        found.append("predict: its output must be annotated ConcatenateIterator[str]")
    if found:
        raise BadContract(found, "Declare each input as Input(...) with plain one-line literals")
    streams = any("streaming" in ast.unparse(decorator) for decorator in method.decorator_list)
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": version},
        "paths": {"/predictions": {"post": {"x-cog-streaming": True} if streams else {}}},
        "components": {"schemas": schemas(pairs)},
    }


def faults(parameter: ast.arg, value: ast.expr | None, source: str) -> Iterator[str]:
    """Everything in the declaration of one parameter that Cog would refuse, drop or garble."""
    if not kind(parameter.annotation):
        yield "its annotation is not supported"
    if not isinstance(value, ast.Call) or ast.unparse(value.func) != "Input" or value.args:
        yield "it must be declared as Input(...) with named arguments"
        return
    for word in value.keywords:
        if word.arg not in KEYWORDS:
            yield f"{word.arg or '**'} is not one of {', '.join(KEYWORDS)}"
        elif not PLAIN.fullmatch(ast.get_source_segment(source, word) or ""):
            yield f"{word.arg} is not a plain literal"


def kind(annotation: ast.expr | None) -> Part:
    """The JSON type of an annotation; empty if unsupported. As in Cog, a dict's types are left out."""
    match annotation:
        case ast.BinOp(left=inner, op=ast.BitOr(), right=ast.Constant(value=None)):
            optional = kind(inner)
            return optional and {**optional, "nullable": True}
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            items = kind(inner)
            return items and {"type": "array", "items": items}
        case ast.Name(id=name) | ast.Subscript(value=ast.Name(id="dict" as name)) if name in TYPES:
            return {"type": TYPES[name]}
    return {}


def schemas(pairs: list[tuple[ast.arg, ast.expr | None]]) -> Part:
    """The schemas Input and Output, and one for each input with choices, which Cog names after the input."""
    properties: Part = {}
    enums: Part = {}
    for order, (parameter, value) in enumerate(pairs):
        assert isinstance(value, ast.Call)
        name, form = parameter.arg, kind(parameter.annotation)
        words = {KEYWORDS[word.arg or ""]: ast.literal_eval(word.value) for word in value.keywords}
        if "enum" in words:
            enums[name] = {"title": name, "description": "An enumeration.", **form, "enum": words.pop("enum")}
            form = {"allOf": [{"$ref": f"#/components/schemas/{name}"}]}
        else:
            form = {"title": name.replace("_", " ").title(), **form}
        properties[name] = {"x-order": order, **form, **words}
    required = [name for name, form in properties.items() if "default" not in form and "nullable" not in form]
    inputs = {"title": "Input", "type": "object", "properties": properties, "required": required}
    return {"Input": inputs, "Output": OUTPUT, **enums}
