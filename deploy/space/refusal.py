"""Why there is no answer: a stable code for programs, which the page puts into French."""

import re
from typing import Any

import gradio as gr
from httpx2 import Response

from snb.errors import BadInput, DeadlinePassed, SNBError

WAITS = ("COLD_START", "BUSY")
"""Codes of conditions that pass by themselves: the same question is asked again."""


class Refusal(Exception):
    """There will be no answer, or not the rest of it.

    Args:
        code: BAD_INPUT, UNAUTHORIZED, BUSY, COLD_START or BACKEND_FAILED.
        fault: one sentence for the caller's developer; no prompt, key or address.
        retry_after: seconds for which a server asks not to be called again.
    """

    def __init__(self, code: str, fault: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{code}: {fault}")
        self.code, self.fault, self.retry_after = code, fault, retry_after

    @property
    def final(self) -> bool:
        """Whether another backend, which has a key of its own, would say the same."""
        return self.code == "BAD_INPUT"

    def shown(self) -> gr.Error:
        """The error for Gradio to send as an `error` event, never as an answer; it logs no traceback."""
        return gr.Error(str(self), title=self.code, duration=None, print_exception=False)


def of_error(error: SNBError) -> Refusal:
    """The refusal for an error of the engine in this process."""
    if isinstance(error, BadInput):
        return Refusal("BAD_INPUT", "; ".join(error.faults))
    if isinstance(error, DeadlinePassed):
        return Refusal("BUSY", "the answer did not begin before its deadline")
    return Refusal("BACKEND_FAILED", f"the engine could not answer ({error.code})")


def of_prediction(prediction: dict[str, Any]) -> Refusal:
    """The refusal for a prediction that did not succeed, on Cog's server or Replicate."""
    text = str(prediction.get("error") or prediction.get("detail") or "")
    for code in ("BAD_INPUT", "PROMPT_TOO_LONG"):
        if f"{code}: " in text:
            return Refusal("BAD_INPUT", text.partition(f"{code}: ")[2])
    if "DEADLINE: " in text:
        return Refusal("BUSY", "the answer did not begin before its deadline")
    return Refusal("BACKEND_FAILED", f"the prediction ended as {prediction.get('status', 'unknown')}")


def of_response(response: Response) -> Refusal:
    """The refusal for an HTTP status; a body may repeat a prompt, so only inputs' names are used."""
    status = response.status_code
    wait = wait_of(response)
    if status in (400, 422) and (names := named_in(response)):
        return Refusal("BAD_INPUT", f"the backend refuses the input {', '.join(names)}")
    if status == 413:
        return Refusal("BAD_INPUT", "the question with its history and passages is too large (413)")
    if status in (401, 403):
        return Refusal("UNAUTHORIZED", f"the backend refuses the key or token ({status})")
    if status in (409, 429):
        return Refusal("BUSY", f"the backend is full ({status})", wait)
    if status == 503:  # during setup()
        return Refusal("COLD_START", "the model is being loaded", wait)
    return Refusal("BACKEND_FAILED", f"the backend answers {status}", wait)


def wait_of(response: Response) -> float:
    """Seconds to wait before a retry: `Retry-After`, or Replicate's `retry_after` in the body; else 0."""
    try:
        after = str(response.headers.get("retry-after") or response.json()["retry_after"])
    except (ValueError, LookupError, TypeError):
        return 0.0
    return float(after) if after.isdigit() else 0.0  # whole seconds: neither a date nor `inf`


def named_in(response: Response) -> list[str]:
    """The inputs that a refusal names, as Cog's server or Replicate writes them."""
    try:
        detail = response.json()["detail"]
        if isinstance(detail, str):
            return re.findall(r"^- input\.(\w+)", detail, re.MULTILINE)
        return [str(fault["loc"][2]) for fault in detail if fault["loc"][:2] == ["body", "input"]]
    except (ValueError, LookupError, TypeError):
        return []
