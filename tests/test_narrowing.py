"""Inputs compared with those that are published: narrower is named, wider and the same are not."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snb.settings import ROOT
from tools.publishing import published_schema
from tools.publishing.narrowing import narrowed, removed
from tools.publishing.project import Project
from tools.serving.schema import derive

Form = dict[str, Any]

TYPES = st.sampled_from(["string", "integer", "number", "boolean", "array"])
NAMES = st.sampled_from(["seed", "philosopher", "top_p", "history", "api_key"])


def document(inputs: dict[str, Form], required: list[str] | None = None) -> Form:
    """As Cog writes it: choices are schemas of their own."""
    schemas: Form = {"Input": {"properties": {}, **({"required": required} if required else {})}}
    for name, form in inputs.items():
        if "enum" in form:
            schemas[name] = {"enum": form["enum"], "type": form["type"]}
            form = {"allOf": [{"$ref": f"#/components/schemas/{name}"}]} | {
                word: value for word, value in form.items() if word not in ("enum", "type")
            }
        schemas["Input"]["properties"][name] = form
    return {"components": {"schemas": schemas}}


@st.composite
def forms(draw: st.DrawFn) -> Form:
    """One input with some bounds that make sense together."""
    kind = draw(TYPES)
    form: Form = {"type": kind, "title": draw(st.text(max_size=3))}
    if kind == "array":
        form["items"] = {"type": draw(st.sampled_from(["string", "integer"]))}
    words = {"string": ("minLength", "maxLength"), "array": ()}.get(kind, ("minimum", "maximum"))
    if kind != "boolean":
        for word, values in zip(words, (st.integers(1, 9), st.integers(20, 99)), strict=False):
            if draw(st.booleans()):
                form[word] = draw(values)
    if kind in ("string", "integer") and draw(st.booleans()):
        values = st.integers(10, 19) if kind == "integer" else st.sampled_from("abcdef")
        form["enum"] = draw(st.lists(values, min_size=2, max_size=4, unique=True))
    if draw(st.booleans()):
        form["nullable"] = True
    if draw(st.booleans()):
        form["default"] = draw(st.sampled_from([0, "", False]))
    return form


INPUTS = st.dictionaries(NAMES, forms(), min_size=1)
WIDER = {
    "minimum": lambda form: form.update(minimum=form["minimum"] - 1),
    "maximum": lambda form: form.update(maximum=form["maximum"] + 1),
    "minLength": lambda form: form.update(minLength=0),
    "maxLength": lambda form: form.pop("maxLength"),
    "enum": lambda form: form["enum"].append("another"),
    "type": lambda form: form.update(type="number" if form["type"] == "integer" else form["type"]),
    "title": lambda form: form.update(title="said otherwise", nullable=True, default=1),
}
NARROWER = {
    "minimum": lambda form: form.update(minimum=form["minimum"] + 1),
    "maximum": lambda form: form.update(maximum=form["maximum"] - 1),
    "minLength": lambda form: form.update(minLength=form["minLength"] + 1),
    "maxLength": lambda form: form.update(maxLength=form["maxLength"] - 1),
    "enum": lambda form: form["enum"].pop(),
    "type": lambda form: form.update(type="object"),
    "nullable": lambda form: form.pop("nullable"),
    "default": lambda form: form.pop("default"),
    "items": lambda form: form.update(items={"type": "boolean"}),
}


@given(inputs=INPUTS, required=st.booleans())
def test_a_schema_compared_with_itself_has_no_finding(inputs: dict[str, Form], required: bool) -> None:
    same = document(inputs, list(inputs) if required else None)
    assert removed(same, same) == []
    assert list(narrowed(same, copy.deepcopy(same))) == []


@given(inputs=INPUTS, data=st.data())
def test_widening_is_never_a_finding(inputs: dict[str, Form], data: st.DataObject) -> None:
    before = document(copy.deepcopy(inputs), list(inputs))
    for form in inputs.values():
        for word in data.draw(st.sets(st.sampled_from(list(WIDER)))) & form.keys():
            WIDER[word](form)
    after = document({**inputs, "new": {"type": "string"}})
    assert removed(before, after) == []
    assert list(narrowed(before, after)) == []


@given(inputs=INPUTS, data=st.data())
def test_each_narrowing_is_a_finding_of_its_input_alone(inputs: dict[str, Form], data: st.DataObject) -> None:
    before = document(copy.deepcopy(inputs))
    name = data.draw(st.sampled_from(sorted(inputs)))
    word = data.draw(st.sampled_from(sorted(NARROWER.keys() & inputs[name].keys())))
    NARROWER[word](inputs[name])
    found = list(narrowed(before, document(inputs)))
    assert len(found) == 1
    assert found[0].startswith(name)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"type": "string"}, {"type": "string", "maxLength": 9}, "maxLength was none and is 9"),
        ({"type": "integer"}, {"type": "integer", "minimum": 0}, "minimum was none and is 0"),
        ({"type": "string"}, {"type": "string", "minLength": 0}, None),
        ({"type": "string"}, {"type": "string", "enum": ["a"]}, "it was free and has choices: a"),
        ({"type": "string", "enum": ["a", "b"]}, {"type": "string"}, None),
        ({"type": "string"}, {"type": "string", "format": "uri"}, "it is a file now"),
        ({"type": "string"}, {"type": "string", "format": "password"}, None),
        ({"type": "number"}, {"type": "integer"}, "its type was number and is integer"),
        ({"type": "string"}, {"type": "string", "pattern": "^a"}, "it has another pattern"),
        ({"type": "integer", "default": None}, {"type": "integer"}, None),
        ({"type": "string"}, {}, None),
        (
            {"type": "array", "items": {"type": "string"}},
            {"type": "array", "items": {"type": "integer"}},
            "each item: its type was string and is integer",
        ),
    ],
)
def test_what_the_finding_says(old: Form, new: Form, said: str | None) -> None:
    found = list(narrowed(document({"x": old}), document({"x": new})))
    assert found == ([f"x: {said}"] if said else [])


def test_an_input_that_is_required_now_is_named_whether_it_is_new_or_not() -> None:
    plain = {"type": "string", "default": ""}
    before, after = document({"x": plain}), document({"x": {"type": "string"}, "y": plain}, ["x", "y"])
    assert list(narrowed(before, after)) == ["x is required now", "y is required now, and is new"]
    assert removed(after, before) == ["y"]


def test_predict_py_is_compared_by_what_cog_derives() -> None:
    source = (ROOT / "predict.py").read_text(encoding="utf-8")
    now = derive(source, "Predictor", "0.23.1")
    fewer = derive(
        source.replace('["spinoza", "bergson", "kant"]', '["spinoza", "kant"]'), "Predictor", "0.23.1"
    )
    assert list(narrowed(now, now)) == []
    assert list(narrowed(fewer, now)) == []
    assert list(narrowed(now, fewer)) == ["philosopher: it has lost choices: bergson"]


def test_a_published_file_may_be_a_model_a_version_or_a_schema_and_else_nothing_is_compared(
    tmp_path: Path,
) -> None:
    schema = derive((ROOT / "predict.py").read_text(encoding="utf-8"), "Predictor", "0.23.1")
    for held in (schema, {"openapi_schema": schema}, {"latest_version": {"openapi_schema": schema}}):
        file = tmp_path / "published.json"
        file.write_text(json.dumps(held))
        assert [f.code for f in published_schema.check(offline(tmp_path, file))] == ["INPUTS"]
    for text in ("", "[]", "{}", '{"openapi_schema": {"components": []}}', '"x"'):
        file.write_text(text)
        assert [f.code for f in published_schema.check(offline(tmp_path, file))] == ["INPUTS_UNCOMPARED"]
    assert [f.level for f in published_schema.check(offline(tmp_path, None))] == ["not checked"]


def offline(home: Path, file: Path | None) -> Project:
    return Project(ROOT, {"HOME": str(home)}, "owner/spinoza", None, 1.0, file)
