"""The schema derived from predict.py: the forms that Cog keeps, and the ones refused because it would not."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from snb.settings import ROOT
from tools.serving import schema
from tools.serving.schema import BadContract, derive

SAMPLE = """
from cog import BasePredictor, ConcatenateIterator, Input, concurrent, streaming

class Predictor(BasePredictor):
    @streaming
    @concurrent(max=4)
    async def predict(
        self,
        color: str = Input(description="One of two.", choices=["red", "blue"], default="red"),
        user_message: str = Input(description="L'élève dit « bonjour ».", min_length=1, max_length=100),
        size: int = Input(
            choices=[
                256,
                512,
            ],
        ),
        turns: list[dict[str, str]] = Input(default=[]),
        words: list[str] = Input(),
        persona: str | None = Input(default=None),
        note: Optional[str] = Input(),
        key: Secret = Input(),
        count: int = Input(default=42, ge=-1, le=2048),
        warmth: float = Input(default=0.7, ge=0.0, le=1.5),
        verbose: bool = Input(default=False),
        extra: dict = Input(),
    ) -> ConcatenateIterator[str]:
        ...
"""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return derive(SAMPLE, "Predictor", "0.23.1")


@pytest.fixture(scope="module")
def properties(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"]["Input"]["properties"]
    return found


def test_each_kind_of_input_becomes_what_cog_build_writes(properties: dict[str, Any]) -> None:
    reference = {"allOf": [{"$ref": "#/components/schemas/color"}]}
    text = {"type": "string", "description": "L'élève dit « bonjour ».", "minLength": 1, "maxLength": 100}
    secret = {"type": "string", "format": "password", "writeOnly": True, "x-cog-secret": True}
    expected: dict[str, dict[str, Any]] = {
        "color": {**reference, "default": "red", "description": "One of two."},
        "user_message": {"title": "User Message", **text},
        "size": {"allOf": [{"$ref": "#/components/schemas/size"}]},
        "turns": {"title": "Turns", "type": "array", "items": {"type": "object"}, "default": []},
        "words": {"title": "Words", "type": "array", "items": {"type": "string"}},
        "persona": {"title": "Persona", "type": "string", "nullable": True, "default": None},
        "note": {"title": "Note", "type": "string", "nullable": True},
        "key": {"title": "Key", **secret},
        "count": {"title": "Count", "type": "integer", "default": 42, "minimum": -1, "maximum": 2048},
        "warmth": {"title": "Warmth", "type": "number", "default": 0.7, "minimum": 0, "maximum": 1.5},
        "verbose": {"title": "Verbose", "type": "boolean", "default": False},
        "extra": {"title": "Extra", "type": "object"},
    }
    assert properties == {name: {"x-order": n, **form} for n, (name, form) in enumerate(expected.items())}


def test_only_inputs_without_a_default_and_not_nullable_are_required(document: dict[str, Any]) -> None:
    inputs = document["components"]["schemas"]["Input"]
    assert (inputs["title"], inputs["type"]) == ("Input", "object")
    assert inputs["required"] == ["user_message", "size", "words", "key", "extra"]


def test_choices_become_a_schema_named_after_the_input(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    enumeration = {"description": "An enumeration."}
    assert schemas["color"] == {"title": "color", "type": "string", "enum": ["red", "blue"], **enumeration}
    assert schemas["size"] == {"title": "size", "type": "integer", "enum": [256, 512], **enumeration}


def test_the_output_is_text_that_is_concatenated(document: dict[str, Any]) -> None:
    assert document["components"]["schemas"]["Output"] == {
        "title": "Output",
        "type": "array",
        "items": {"type": "string"},
        "x-cog-array-type": "iterator",
        "x-cog-array-display": "concatenate",
    }


def test_the_release_is_stated_and_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    assert (document["openapi"], document["info"]) == ("3.0.2", {"title": "Cog", "version": "0.23.1"})
    targets = set(json.dumps(document).split('"#/components/schemas/')[1:])
    assert {target.split('"')[0] for target in targets} <= set(document["components"]["schemas"])


@pytest.mark.parametrize(
    ("decorator", "streams"),
    [("@streaming", True), ("@cog.streaming", True), ("@streaming()", True), ("@concurrent(max=4)", False)],
)
def test_streaming_is_announced_only_with_its_decorator(decorator: str, streams: bool) -> None:
    source = SAMPLE.replace("@streaming\n    @concurrent(max=4)", decorator)
    post = derive(source, "Predictor", "0.23.1")["paths"]["/predictions"]["post"]
    assert post.get("x-cog-streaming") == (True if streams else None)


def one(parameter: str, before: str = "", output: str = "ConcatenateIterator[str]") -> str:
    """A predictor with one parameter."""
    return f"class Predictor:\n    {before}\n    def predict(self, {parameter}) -> {output}: ...\n"


@pytest.mark.parametrize(
    ("parameter", "fault"),
    [
        ("x: str = Input(description=f'{1}')", "description is not a plain literal"),
        ("x: str = Input(description='one' 'two')", "description is not a plain literal"),
        (r"x: str = Input(description='one\ntwo')", "description is not a plain literal"),
        ("x: str = Input(description=TEXT)", "description is not a plain literal"),
        ("x: int = Input(default=2 * 3)", "default is not a plain literal"),
        ("x: int = Input(default='3')", "default is not of the annotated type"),
        ("x: int = Input(default=None)", "a default of None needs an annotation that ends in | None"),
        ("x: str = Input(regex='a+')", "regex is not one of"),
        ("x: int = Input(le=LIMIT)", "le is not a plain literal"),
        ("x: int = Input(ge='1')", "ge is a literal of the wrong type"),
        ("x: str = Input(choices=NAMES)", "choices is not a plain literal"),
        ("x: str = Input(choices=['a', 2])", "choices are not of the annotated type"),
        ("x: str = Input(choices=[])", "choices are for int and str"),
        ("x: Path = Input(default='a')", "the annotation (Path) is not supported"),
        ("x: str | int = Input()", "the annotation (str | int) is not supported"),
        ("x = Input()", "the annotation (none) is not supported"),
        ("x: str = 'a'", "it must be declared as Input(...) with named arguments"),
    ],
)
def test_what_cog_would_lose_or_garble_is_refused_by_the_name_of_its_input(
    parameter: str, fault: str
) -> None:
    with pytest.raises(BadContract) as caught:
        derive(one(parameter), "Predictor", "0.23.1")
    assert [found.partition(": ")[0] for found in caught.value.faults] == ["x"]
    assert caught.value.faults[0].startswith(f"x: {fault}")


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (one("*, x: str = Input()"), "plain ones"),
        (one("x: str = Input(), /"), "plain ones"),
        (one("*x: str"), "plain ones"),
        (one("**x: str"), "plain ones"),
        (one("", output="str"), "its output must be annotated ConcatenateIterator[str]"),
        (one("", before="@cached"), "the decorator cached is not one of"),
        (one("").replace("Predictor", "Other"), "Predictor.predict is not there"),
        ("class Predictor: ...", "Predictor.predict is not there"),
    ],
)
def test_a_predict_of_another_form_is_refused(source: str, fault: str) -> None:
    with pytest.raises(BadContract, match="BAD_CONTRACT") as caught:
        derive(source, "Predictor", "0.23.1")
    assert len(caught.value.faults) == 1
    assert fault in caught.value.faults[0]


def test_all_faults_are_reported_at_once() -> None:
    source = one("a: Path = Input(le=TOP, regex='a'), b: str = 'x'", before="@cached", output="str")
    with pytest.raises(BadContract) as caught:
        derive(source, "Predictor", "0.23.1")
    assert [fault.partition(": ")[0] for fault in caught.value.faults] == [
        "predict",
        "predict",
        "a",
        "a",
        "a",
        "b",
    ]


def test_write_puts_the_schema_where_the_server_looks_for_it(tmp_path: Path) -> None:
    (tmp_path / "cog.yaml").write_text('build: {sdk_version: "0.23.1"}\npredict: "model.py:Predictor"\n')
    (tmp_path / "model.py").write_text(SAMPLE, encoding="utf-8")
    path = schema.write(tmp_path)
    assert path == tmp_path / ".cog" / "openapi_schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == derive(SAMPLE, "Predictor", "0.23.1")


def test_this_projects_own_predictor_says_nothing_that_cog_would_lose() -> None:
    config = yaml.safe_load((ROOT / "cog.yaml").read_text(encoding="utf-8"))
    file, name = config["predict"].split(":")
    document = derive((ROOT / file).read_text(encoding="utf-8"), name, config["build"]["sdk_version"])
    inputs = document["components"]["schemas"]["Input"]
    assert inputs["required"] == ["user_message"]
    assert all(inputs["properties"][name].get("description") for name in inputs["properties"])
    assert document["paths"]["/predictions"]["post"]["x-cog-streaming"] is True
