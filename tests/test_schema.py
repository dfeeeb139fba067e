"""The schema derived from predict.py: what callers rely on, and forms that Cog would drop or garble."""

import pytest
import yaml

from snb.settings import ROOT
from tools.serving.schema import BadContract, derive


def test_this_projects_own_predictor_says_what_callers_rely_on() -> None:
    config = yaml.safe_load((ROOT / "cog.yaml").read_text(encoding="utf-8"))
    file, name = config["predict"].split(":")
    document = derive((ROOT / file).read_text(encoding="utf-8"), name, config["build"]["sdk_version"])
    schemas = document["components"]["schemas"]
    inputs = schemas["Input"]["properties"]
    assert schemas["Input"]["required"] == ["user_message"]
    assert all(form["description"] for form in inputs.values())
    shown = {name: {**form, "description": ""} for name, form in inputs.items()}
    form = {"x-order": 1, "title": "User Message", "type": "string", "description": ""}
    assert shown["user_message"] == {**form, "minLength": 1, "maxLength": 4000}
    form = {"x-order": 14, "title": "Seed", "type": "integer", "nullable": True, "description": ""}
    assert shown["seed"] == {**form, "minimum": 0, "maximum": 4294967295, "default": None}
    form = {"allOf": [{"$ref": "#/components/schemas/philosopher"}], "description": ""}
    assert shown["philosopher"] == {"x-order": 0, **form, "default": "spinoza"}
    assert shown["history"]["items"] == {"type": "object"}
    assert schemas["Output"]["x-cog-array-display"] == "concatenate"
    assert document["paths"]["/predictions"]["post"]["x-cog-streaming"] is True


@pytest.mark.parametrize(
    ("parameter", "fault"),
    [
        ("x: str = Input(description='one' 'two')", "description is not a plain literal"),
        (r"x: str = Input(description='one\ntwo')", "description is not a plain literal"),
        ("x: str = Input(regex='a+')", "regex is not one of"),
        ("x: int = Input(le=LIMIT)", "le is not a plain literal"),
        ("x = Input()", "its annotation is not supported"),
        ("x: str = 'a'", "it must be declared as Input(...) with named arguments"),
    ],
)
def test_what_cog_would_lose_or_garble_is_refused_by_the_name_of_its_input(
    parameter: str, fault: str
) -> None:
    with pytest.raises(BadContract) as caught:
        derive(f"class Predictor:\n    def predict(self, {parameter}) -> str: ...\n", "Predictor", "0.23.1")
    first, second = caught.value.faults
    assert first.startswith(f"x: {fault}")
    assert second.startswith("predict: its output")
