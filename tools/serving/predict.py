"""Asks a philosopher one question on this machine, through the real Cog server, and streams the answer."""

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from snb.errors import BadInput
from snb.request import Request
from snb.settings import ROOT
from tools.endpoints.cog_endpoint import Cog
from tools.serving import local, schema
from tools.serving.server import Server

TYPES = {"integer": int, "number": float, "string": str}
FILES = ("rag_context", "system_prompt", "history")
"""Inputs whose options take the name of a file."""


def content(name: str, file: str) -> Any:
    """The value of an input that is read from a file: its text, or for `history` a list in JSON."""
    try:
        text = Path(file).read_text(encoding="utf-8")
        return turns(text) if name == "history" else text
    except (OSError, ValueError) as error:
        raise BadInput(f"{name} cannot be read from {file}: {error}", "--help says what it holds") from error


def turns(text: str) -> list[Any]:
    found = json.loads(text)
    if not isinstance(found, list):
        raise ValueError("it holds no list")
    return found


def options() -> dict[str, Any]:
    """The inputs on the command line, one option for each input of predict.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    document = json.loads(schema.write(ROOT).read_text(encoding="utf-8"))
    for name, field in document["components"]["schemas"]["Input"]["properties"].items():
        option = name if name == "user_message" else "--" + name.replace("_", "-")
        reading: dict[str, Any] = {"type": TYPES.get(field.get("type", "string"))}
        if name in FILES:
            reading = {"type": partial(content, name), "metavar": "FILE"}
        elif field.get("type") == "array":
            reading = {"nargs": "+", "metavar": "TEXT"}
        parser.add_argument(option, help=field["description"].replace("%", "%%"), **reading)
    return {name: value for name, value in vars(parser.parse_args()).items() if value is not None}


def main() -> int:
    inputs = options()
    Request.checked(**inputs)  # the server checks them too, but only after its boot
    settings = local.settings()
    print("Loading the model …", file=sys.stderr)
    with tempfile.TemporaryFile("w+") as log, Server(settings, log=log) as server:
        server.wait()
        for piece in Cog("here", server.url).ask(inputs):
            print(piece.text, end="", flush=True)
        print()
        print(f"\n{json.dumps(piece.metrics, indent=2, ensure_ascii=False)}", file=sys.stderr)
    return 0
