"""Starlette servers on loopback, in place of other people's services."""

import socket
import threading
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route


class Served:
    """Serves on a free loopback port, in a thread, until its block ends, which drops unfinished requests."""

    def __init__(self, *routes: Route) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(Starlette(routes=routes), lifespan="off", log_level="error")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    def __enter__(self) -> Self:
        # The socket is already listening, so a request that comes before the thread is ready waits.
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self._socket.close()
