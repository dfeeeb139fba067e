"""Starts what the client's tests talk to, prints where as a line of JSON, and ends with its standard input.

Behind every door is one real Cog server on a tiny random model, which says, as the stand-in does, that it is
no philosopher. The front before it, which asks for a key, is one of the doors.
"""

import contextlib
import json
import signal
import sys
import tempfile
from pathlib import Path

from tests.hosts import KEY, behind
from tests.replicate_server import ReplicateServer
from tests.space_page import SpacePage
from tests.tiny import save_tiny
from tools.serving.server import FRONT, Server


def main() -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sizes = {"num_hidden_layers": 16, "max_position_embeddings": 8192}
        base = save_tiny(folder / "base", **sizes, snb_notice="a random model")
        settings = {
            "SNB_BASE_MODEL": str(base),
            "SNB_ADAPTER": "none",
            "SNB_SLOTS": "32",
            "SNB_PIECE_MS": "0",  # else the number of pieces would depend on who is faster
            "SNB_API_KEY": KEY,
            "OMP_NUM_THREADS": "1",
        }
        log = stack.enter_context((folder / "log").open("w"))
        locked = stack.enter_context(Server(settings, log=log, module=FRONT))
        from tools.rehearsing.old_space import old_space  # takes seconds to import

        locked.wait()
        cog = behind(locked)
        replicate = stack.enter_context(ReplicateServer(cog.url))
        space = stack.enter_context(old_space(cog))
        page = stack.enter_context(SpacePage({"SNB_BACKEND_URL": cog.url}, folder / "page.log"))
        urls = {"cog": cog.url, "locked": locked.url, "key": KEY, "log": log.name}
        urls |= {"replicate": replicate.url, "page": page.url, "space": space}
        print(json.dumps(urls), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that what was started ends too
    main()
