"""Starts what the JavaScript tests talk to, prints where as a line of JSON, and ends with its standard input.

python -m tests.doors [replicate] [space] [rich] [page] [slow]

The model behind them is a tiny random one which says, as the stand-in does, that it is no philosopher; a slow
one takes seconds for an answer of usual length.
"""

import contextlib
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.replicate_server import ReplicateServer
from tests.space_page import SpacePage
from tests.tiny import save_tiny
from tools.serving.server import Server


def settings(folder: Path, layers: int) -> dict[str, str]:
    """Of the Cog server."""
    sizes = {"num_hidden_layers": layers, "max_position_embeddings": 8192}
    base = save_tiny(folder, **sizes, snb_notice="a random model")
    return {"SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none"}


def door(name: str, cog: str, log: Path) -> contextlib.AbstractContextManager[Any]:
    """Another test server before the Cog server; it has a `url`."""
    if name == "replicate":
        return ReplicateServer(cog)
    if name == "page":
        return SpacePage({"SNB_BACKEND_URL": cog}, log)
    from tests.gradio_space import GradioSpace  # takes seconds to import

    return GradioSpace(cog, rich=name == "rich")


def main(*names: str) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = stack.enter_context((folder / "cog.log").open("w"))
        layers = 16 if "slow" in names else 8
        server = stack.enter_context(Server(settings(folder / "base", layers), log=log))
        urls = {"cog": server.url, "log": str(folder / "cog.log")}
        for name in {*names} - {"slow"}:
            urls[name] = stack.enter_context(door(name, server.url, folder / f"{name}.log")).url
        server.wait()
        print(json.dumps(urls), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that what was started ends too
    main(*sys.argv[1:])
