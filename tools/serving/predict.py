"""Asks a philosopher one question on this machine, through the real Cog server, and streams the answer."""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from snb.settings import ROOT
from tools.endpoints.cog_endpoint import Cog
from tools.serving import local, schema
from tools.serving.server import Server, SetupFailed


def text(file: str) -> str:
    """What a file holds."""
    return Path(file).read_text(encoding="utf-8")


def turns(file: str) -> Any:
    """The JSON that a file holds."""
    return json.loads(text(file))


FILES = {"rag_context": text, "system_prompt": text, "history": turns}
TYPES = {"integer": int, "number": float, "string": str}


def options() -> dict[str, Any]:
    """The inputs on the command line, one option for each input of predict.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    document = json.loads(schema.write(ROOT).read_text(encoding="utf-8"))
    for name, field in document["components"]["schemas"]["Input"]["properties"].items():
        option = name if name == "user_message" else "--" + name.replace("_", "-")
        parser.add_argument(option, help=field["description"].replace("%", "%%"), **reading(name, field))
    return {name: value for name, value in vars(parser.parse_args()).items() if value is not None}


def reading(name: str, field: dict[str, Any]) -> dict[str, Any]:
    """How argparse is to read an input: from a file, as a list, or as a value of its type."""
    if name in FILES:
        return {"type": FILES[name], "metavar": "FILE"}
    if field.get("type") == "array":
        return {"nargs": "+", "metavar": "TEXT"}
    return {"type": TYPES[field.get("type", "string")]}


def ask(server: Server, inputs: dict[str, Any]) -> None:
    """Streams one answer to stdout and its metrics to stderr; raises Failed or Busy where there is none."""
    for piece in Cog("here", server.url).ask(inputs):
        print(piece.text, end="", flush=True)
    metrics = {**piece.metrics, **piece.words}
    print(f"\n\n{json.dumps(metrics, indent=2, ensure_ascii=False)}", file=sys.stderr)


def main() -> int:
    inputs = options()
    with tempfile.TemporaryFile("w+") as log:
        weights = local.settings()
        print("Loading the model …", file=sys.stderr)
        with Server(weights, log=log) as server:
            try:
                server.wait()
            except SetupFailed as error:
                log.seek(0)
                print(log.read(), error, sep="\n", file=sys.stderr)
                return 1
            ask(server, inputs)
    return 0
