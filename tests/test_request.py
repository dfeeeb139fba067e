"""A bad request is refused before it is queued; the refusal names each input and fault."""

import math
from typing import Any

import pytest

from snb.errors import BadInput
from snb.parameters import MAX_STOP, MAX_STOPS, Sampling, bounds
from snb.request import MAX_MESSAGE, MAX_PASSAGES, Request
from snb.settings import ROOT, Settings
from tools.serving import schema

SOURCE = (ROOT / "predict.py").read_text(encoding="utf-8")
INPUTS = schema.derive(SOURCE, "Predictor", "0")["components"]["schemas"]["Input"]["properties"]
"""What callers read of each input."""


TURN = {"role": "user", "content": "x"}
BAD: dict[str, list[Any]] = {
    "user_message": ["", "é" * 4001, "\ud83d"],
    "rag_context": ["x" * 200_001],
    "system_prompt": ["\udc00", "x" * 20_001],
    "philosopher": ["descartes"],
    "history": [[TURN] * 201, [*[TURN] * 200, {}], ["x"], [{"role": "user"}], [{**TURN, "name": "y"}]],
    "history[0].role": [[{**TURN, "role": "system"}]],
    "history[0].content": [[{**TURN, "content": 3}]],
    "max_tokens": [0],
    "min_tokens": [257],
    "temperature": [-0.1, math.nan],
    "top_p": [1.1],
    "top_k": [-1],
    "repetition_penalty": [0.4],
    "presence_penalty": [math.inf],
    "frequency_penalty": [-3],
    "stop_sequences": [["x"] * 17],
    "stop_sequences[0]": [[""]],
    "seed": [-1, 2**32],
    "deadline_seconds": [-1],
}


@pytest.mark.parametrize("name", BAD)
def test_each_bad_input_is_named(name: str) -> None:
    for value in BAD[name]:
        with pytest.raises(BadInput) as caught:
            Request.checked(**{"user_message": "Bonjour", name.partition("[")[0]: value})
        assert any(fault.startswith(name) for fault in caught.value.faults)


def test_a_whole_float_is_taken_for_the_integer_that_it_is() -> None:
    sampling = Request.checked(user_message="x", max_tokens=5.0, top_k=1e2).sampling
    assert repr((sampling.max_tokens, sampling.top_k)) == "(5, 100)"


def test_all_faults_come_together_and_no_text_of_the_caller_is_repeated() -> None:
    with pytest.raises(BadInput) as caught:
        Request.checked(
            user_message="secret" * 1000, temperature=3, history=[{"role": "x", "content": "secret"}]
        )
    assert len(caught.value.faults) == 3
    assert "secret" not in str(caught.value)


def test_the_bounds_are_those_that_callers_read_in_the_schema() -> None:
    numbers = {name: part for name, part in INPUTS.items() if part.get("type") in ("integer", "number")}
    declared = {name: (part["minimum"], part["maximum"]) for name, part in numbers.items()}
    assert declared == bounds(Sampling) | bounds(Request)
    message = INPUTS["user_message"]
    assert (message["minLength"], message["maxLength"]) == (1, MAX_MESSAGE)
    for name, words in {
        "user_message": f"1 to {MAX_MESSAGE:,} characters",
        "rag_context": f"At most {MAX_PASSAGES:,} characters",
        "stop_sequences": f"At most {MAX_STOPS}, of 1 to {MAX_STOP} characters",
        "deadline_seconds": f"{Settings().deadline} by default",
    }.items():
        assert words in INPUTS[name]["description"]


def test_who_leaves_everything_out_is_answered_as_the_schema_says() -> None:
    defaults = {name: part["default"] for name, part in INPUTS.items() if "default" in part}
    assert len(defaults) == len(INPUTS) - 1  # the message has none
    assert Request.checked(user_message="x") == Request.checked(user_message="x", **defaults)
