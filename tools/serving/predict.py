"""Asks a philosopher one question on this machine, through the real Cog server, and streams the answer."""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from snb.errors import BadInput
from snb.request import Request
from snb.settings import ROOT
from tools.endpoints.cog_endpoint import Cog
from tools.serving import local, schema
from tools.serving.server import Server

TYPES = {"integer": int, "number": float, "string": str}
TURNS = 'Write the turns as [{"role": "user", "content": "…"}, …]'


def text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadInput(f"{file} cannot be read as UTF-8: {error}", "Name a text file") from error


def turns(file: str) -> list[Any]:
    try:
        found = json.loads(text(file))
    except ValueError as error:
        raise BadInput(f"{file} is not JSON: {error}", TURNS) from error
    if not isinstance(found, list):
        raise BadInput(f"{file} does not hold a list", TURNS)
    return found


FILES = {"rag_context": text, "system_prompt": text, "history": turns}


def options() -> dict[str, Any]:
    """The inputs on the command line, one option for each input of predict.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    document = json.loads(schema.write(ROOT).read_text(encoding="utf-8"))
    for name, field in document["components"]["schemas"]["Input"]["properties"].items():
        option = name if name == "user_message" else "--" + name.replace("_", "-")
        reading: dict[str, Any] = {"type": TYPES.get(field.get("type", "string"))}
        if name in FILES:
            reading = {"type": FILES[name], "metavar": "FILE"}
        elif field.get("type") == "array":
            reading = {"nargs": "+", "metavar": "TEXT"}
        parser.add_argument(option, help=field["description"].replace("%", "%%"), **reading)
    return {name: value for name, value in vars(parser.parse_args()).items() if value is not None}


def main() -> int:
    inputs = options()
    Request.checked(**inputs)  # what the server refuses too, but only after its boot
    settings = local.settings()
    print("Loading the model …", file=sys.stderr)
    with tempfile.TemporaryFile("w+") as log, Server(settings, log=log) as server:
        server.wait()
        for piece in Cog("here", server.url).ask(inputs):
            print(piece.text, end="", flush=True)
        print()
        print(f"\n{json.dumps(piece.metrics, indent=2, ensure_ascii=False)}", file=sys.stderr)
    return 0
