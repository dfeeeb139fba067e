"""Starts servers for the client's tests, prints their URLs as a line of JSON, and ends with its stdin.

The servers are those of `doors`, or, with the argument "refusing", those of `refusing`.
"""

import contextlib
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.hosts import KEY, behind, puppet, puppet_server
from tests.puppet import ERRORS, error
from tests.replicate_server import ReplicateServer
from tests.space_page import SpacePage
from tools.serving.server import COG, FRONT, Server


def doors(stack: contextlib.ExitStack, folder: Path) -> dict[str, Any]:
    """Ways in to one real Cog server with a tiny random model, whose notice says that it is no philosopher.

    One of them is the front, which asks for a key.
    """
    from tests.tiny import save_tiny  # takes seconds to import

    sizes = {"num_hidden_layers": 16, "max_position_embeddings": 8192}
    base = save_tiny(folder / "base", **sizes, snb_notice="a random model")
    settings = {
        "SNB_BASE_MODEL": str(base),
        "SNB_ADAPTER": "none",
        "SNB_SLOTS": "32",
        "SNB_PIECE_MS": "0",  # else the number of pieces would depend on timing
        "SNB_API_KEY": KEY,
        "OMP_NUM_THREADS": "1",
    }
    log = stack.enter_context((folder / "log").open("w"))
    locked = stack.enter_context(Server(settings, log=log, module=FRONT))
    from tools.rehearsing.old_space import old_space  # takes seconds too, while the server boots

    locked.wait()
    cog = behind(locked)
    replicate = stack.enter_context(ReplicateServer(cog.url))
    space = stack.enter_context(old_space(cog))
    page = stack.enter_context(SpacePage({"SNB_BACKEND_URL": cog.url}, folder / "page.log"))
    urls = {"cog": cog.url, "locked": locked.url, "replicate": replicate.url, "page": page.url}
    return {**urls, "space": space, "key": KEY, "log": log.name}


def refusing(stack: contextlib.ExitStack, folder: Path) -> dict[str, Any]:
    """Servers whose answers and errors a test chooses, and the text of each error.

    They run predict.py with the service of tests/puppet.py.
    """
    puppet(folder, "set-up", "go-on", places=32)
    contract = folder / "predict.py"  # a server of another version than the client's
    contract.write_text(contract.read_text("utf-8").replace("le=2048", "le=1024"), "utf-8")
    cog = stack.enter_context(puppet_server(folder, COG))
    front = stack.enter_context(puppet_server(folder, SNB_API_KEY=KEY))
    page = stack.enter_context(SpacePage({"SNB_BACKEND_URL": cog.url}, folder / "page.log"))
    replicate = stack.enter_context(ReplicateServer(cog.url))
    front.wait()
    urls = {"cog": cog.url, "front": front.url, "page": page.url, "replicate": replicate.url}
    return {**urls, "key": KEY, "sentences": {code: str(error(code)) for code in ERRORS}}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the servers end too
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        start = refusing if sys.argv[1:] == ["refusing"] else doors
        print(json.dumps(start(stack, folder)), flush=True)
        sys.stdin.read()
