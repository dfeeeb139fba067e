"""Starts servers that say what a test wants them to, for the client's tests, as tests/doors.py does.

The contract is predict.py's own, before a service without a model. A question that is a code is refused with
that error of ours, `CODE late` after some text; any other is answered with itself. Printed besides the
addresses: what each error says.
"""

import contextlib
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snb import errors
from snb.request import Request
from snb.settings import ROOT
from tests.doors import KEY
from tests.replicate_server import ReplicateServer
from tests.space_page import SpacePage
from tools.serving.server import FRONT, Server

ERRORS: dict[str, type[errors.SNBError]] = {
    one.code: one
    for one in vars(errors).values()
    if isinstance(one, type) and issubclass(one, errors.SNBError)
}
TEXT = "La liberté, "


class Service:
    """In place of snb.service.Service."""

    healthy = True

    def __init__(self, _: object) -> None:
        pass

    def answer(self, request: Request, _: object) -> Iterator[str]:
        """Raises what the question names: before there is an iterator, or from it."""
        code, _, late = request.user_message.partition(" ")
        if code not in ERRORS:
            return (piece for piece in request.user_message)
        if not late:
            raise error(code)
        return broken_off(code)


def broken_off(code: str) -> Iterator[str]:
    """Some text, then the error."""
    yield TEXT
    raise error(code)


def error(code: str) -> errors.SNBError:
    """An error of that code, with a fault and a cure as all have them."""
    return ERRORS[code](["an input has a fault", "another: has one too"], "Allowed is 1 to 10: try 5")


def main() -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        source = (ROOT / "predict.py").read_text(encoding="utf-8")
        source = source.replace("le=2048", "le=1024")  # a server of another version than the client's
        shutil.copy(ROOT / "cog.yaml", folder)
        (folder / "predict.py").write_text(source.replace("from snb.service", "from tests.refusing"), "utf-8")
        log = stack.enter_context((folder / "log").open("w"))
        servers: dict[str, Any] = {
            "cog": stack.enter_context(Server({}, log=log, directory=folder)),
            "front": stack.enter_context(
                Server({"SNB_API_KEY": KEY}, log=log, directory=folder, module=FRONT)
            ),
        }
        page = SpacePage({"SNB_BACKEND_URL": servers["cog"].url}, folder / "page.log")
        for server in servers.values():
            server.wait()
        servers["replicate"] = stack.enter_context(ReplicateServer(servers["cog"].url))
        servers["page"] = stack.enter_context(page)
        urls = {name: server.url for name, server in servers.items()}
        said = {code: str(error(code)) for code in ERRORS}
        print(json.dumps({**urls, "key": KEY, "sentences": said}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that what was started ends too
    main()
