"""Starts servers that say what a test wants them to, for the client's tests, as tests/doors.py does.

The contract is predict.py's own, before the service of tests/puppet.py. Printed besides the addresses: what
each error says.
"""

import contextlib
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.hosts import KEY, puppet, puppet_server
from tests.puppet import ERRORS, error
from tests.replicate_server import ReplicateServer
from tests.space_page import SpacePage
from tools.serving.server import COG


def main() -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        puppet(folder, "set-up", "go-on", places=32)
        contract = folder / "predict.py"  # a server of another version than the client's
        contract.write_text(contract.read_text("utf-8").replace("le=2048", "le=1024"), "utf-8")
        cog = stack.enter_context(puppet_server(folder, COG))
        servers: dict[str, Any] = {
            "cog": cog,
            "front": stack.enter_context(puppet_server(folder, SNB_API_KEY=KEY)),
        }
        servers["page"] = stack.enter_context(SpacePage({"SNB_BACKEND_URL": cog.url}, folder / "page.log"))
        servers["replicate"] = stack.enter_context(ReplicateServer(cog.url))
        servers["front"].wait()
        urls = {name: server.url for name, server in servers.items()}
        said = {code: str(error(code)) for code in ERRORS}
        print(json.dumps({**urls, "key": KEY, "sentences": said}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that what was started ends too
    main()
