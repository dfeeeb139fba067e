"""Inputs of predict.py as the system and user messages of other servers."""

from collections.abc import Mapping
from typing import Any

from snb.philosophers import persona
from snb.prompt import split_passages, user_text


def system(inputs: Mapping[str, Any]) -> str:
    return str(inputs.get("system_prompt") or persona(inputs["philosopher"]))


def message(inputs: Mapping[str, Any]) -> str:
    """The user turn, passages included, exactly as this package writes it in its own prompts."""
    return user_text(split_passages(inputs.get("rag_context", "")), inputs["user_message"])
