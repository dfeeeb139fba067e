"""Replicate in front of a real Cog server, for tests in any language.

From Python: `with ReplicateServer(cog_url) as server`. From anything else: run this file with the URL of the
Cog server, PYTHONPATH being the repository; it prints its own and the version's id as JSON, and ends when its
standard input does. Tests speak to it by

- `POST /_test/faults`: one fault or a list, see `replicate_faults.Fault`; `GET` what is left; `DELETE` all
- `GET /_test/log`: method, path, headers, body and status of every request; `DELETE` empties it
- `POST /_test/settings`: `official`, `shortest_deadline`, see `replicate_api.Api`
"""

import argparse
import json
import os
import socket
import sys
import threading
from typing import Any

import uvicorn
from replicate_api import Api, Problem
from replicate_faults import Fault, Faults
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class Control:
    """The endpoint for tests, which is no part of Replicate's."""

    def __init__(self, api: Api) -> None:
        methods = ["GET", "POST", "DELETE"]
        handlers = {"faults": self._faults, "log": self._log, "settings": self._settings}
        routes = [Route(f"/_test/{name}", handler, methods=methods) for name, handler in handlers.items()]
        self.app = Faults(Starlette(routes=api.routes + routes, exception_handlers={Problem: Problem.reply}))
        self._given = api.settings

    async def _faults(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.app.pending.clear()
        elif request.method == "POST":
            given = await request.json()
            try:
                self.app.pending += [Fault(**one) for one in (given if isinstance(given, list) else [given])]
            except TypeError as error:
                return JSONResponse({"detail": str(error)}, 400)
        return JSONResponse(self.app.shown())

    async def _log(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.app.log.clear()
        return JSONResponse(self.app.log)

    async def _settings(self, request: Request) -> Response:
        given = await request.json() if request.method == "POST" else {}
        if unknown := given.keys() - self._given.keys():
            return JSONResponse({"detail": f"unknown: {', '.join(unknown)}"}, 400)
        self._given |= given
        return JSONResponse(self._given)


class ReplicateServer:
    """The API on a free port of loopback, in a thread. See `Api` for the arguments.

    On exit the predictions that run are dropped, so that Cog's server stops too.
    """

    def __init__(self, cog: str, token: str = "r8_test", **options: Any) -> None:
        self.token = token
        self._api = Api(cog, token, **options)
        self._app = Control(self._api).app
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        # h11: what a fault needs in order to break a connection is reached through its request cycle.
        config = uvicorn.Config(self._app, http="h11", ws="none", lifespan="off", log_level="warning")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    @property
    def version(self) -> str:
        """The id of the model's one version."""
        return self._api.version

    @property
    def log(self) -> list[dict[str, Any]]:
        """The requests, see `Faults`."""
        return self._app.log

    def fail(self, method: str, path: str, **fault: Any) -> None:
        """Adds a `Fault`."""
        self._app.pending.append(Fault(method, path, **fault))

    def __enter__(self) -> "ReplicateServer":
        # The socket listens already: a request that comes before the thread is ready waits.
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self._socket.close()


def main() -> None:
    """Serves until standard input ends; the token is REPLICATE_API_TOKEN."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("cog", help="where the Cog server is")
    arguments = parser.parse_args()
    with ReplicateServer(arguments.cog, os.environ.get("REPLICATE_API_TOKEN", "r8_test")) as server:
        print(json.dumps({"url": server.url, "version": server.version}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
