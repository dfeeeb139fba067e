"""Starts what the JavaScript tests talk to, prints where as a line of JSON, and ends with its standard input.

python tests/doors.py tiny|standin [replicate] [space] [rich] [page]
"""

import contextlib
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import environment  # noqa: E402, F401  puts every folder of scripts/ on the path
from replicate_server import ReplicateServer  # noqa: E402
from server import Server  # noqa: E402
from space_page import SpacePage  # noqa: E402
from tiny import save_tiny  # noqa: E402


def settings(kind: str, folder: Path) -> dict[str, str]:
    """The model that the Cog server holds."""
    if kind == "tiny":
        base = save_tiny(folder / "base", max_position_embeddings=8192)
        return {"SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none", "SNB_SCRIPTS": "any"}
    standin = ROOT / "weights" / "standin"
    return {"SNB_BASE_MODEL": str(standin / "base"), "SNB_ADAPTER": str(standin / "adapter")}


def door(name: str, cog: str, log: Path) -> contextlib.AbstractContextManager[Any]:
    """Another test server before the Cog server; it has a `url`."""
    if name == "replicate":
        return ReplicateServer(cog)
    if name == "page":
        return SpacePage({"SNB_BACKEND_URL": cog}, log)
    from gradio_space import GradioSpace  # takes seconds to import

    return GradioSpace(cog, rich=name == "rich")


def main(kind: str, *names: str) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = stack.enter_context((folder / "cog.log").open("w"))
        server = stack.enter_context(Server(settings(kind, folder), log=log))
        urls = {"cog": server.url, "log": str(folder / "cog.log")}
        for name in names:
            urls[name] = stack.enter_context(door(name, server.url, folder / f"{name}.log")).url
        server.wait()
        print(json.dumps(urls), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that what was started ends too
    main(*sys.argv[1:])
