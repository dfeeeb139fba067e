"""The same question in the words of different servers."""

from collections.abc import Mapping, Set
from typing import Any

from snb.philosophers import persona
from snb.prompt import split_passages, user_text
from tools.endpoints.endpoint import Failed

ALIASES = {
    "user_message": ("user_message", "prompt"),
    "max_tokens": ("max_tokens", "max_new_tokens"),
    "min_tokens": ("min_tokens", "min_new_tokens"),
}
"""Names that language models share on Replicate, after those of predict.py."""


def system(inputs: Mapping[str, Any]) -> str:
    """The system prompt of a question."""
    return str(inputs.get("system_prompt") or persona(inputs["philosopher"]))


def message(inputs: Mapping[str, Any]) -> str:
    """The user turn, passages included, exactly as this package writes it."""
    return user_text(split_passages(inputs.get("rag_context", "")), inputs["user_message"])


def adapt(inputs: Mapping[str, Any], known: Set[str]) -> dict[str, Any]:
    """What a model is sent whose inputs are `known`. It is sent nothing else, so it may choose the rest.

    Raises:
        Failed: it has no input for the question.
    """
    if not known & set(ALIASES["user_message"]):
        raise Failed(f"the model takes none of {', '.join(ALIASES['user_message'])}")
    wanted = dict(inputs)
    if "rag_context" not in known:
        wanted["user_message"] = message(inputs)
    if "philosopher" not in known:
        wanted["system_prompt"] = system(inputs)
    if "prompt" in known and "system_prompt" not in known:
        wanted["user_message"] = f"{system(inputs)}\n\n{wanted['user_message']}"
    return {
        alias: value
        for name, value in wanted.items()
        for alias in ALIASES.get(name, (name,))
        if alias in known
    }


def properties(schema: Mapping[str, Any]) -> frozenset[str]:
    """The names of the inputs in an OpenAPI document of Cog.

    Raises:
        Failed: it is none.
    """
    try:
        return frozenset(schema["components"]["schemas"]["Input"]["properties"])
    except (KeyError, TypeError) as error:
        raise Failed("the server has no schema of Cog's inputs") from error
