"""Runs deploy/space/app.py as a Space does, for tests."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from snb.front.process_group import end, start
from snb.settings import ROOT
from tests.hosts import status_code
from tests.waiting import until
from tools.serving.server import free_port

SPACE = ROOT / "deploy" / "space"


class SpacePage:
    """The page in a process of its own, on a free port of loopback, until its block ends.

    Args:
        settings: variables on top of this process's own; without SNB_BACKEND_URL the engine is inside.
        log: the file to which its output goes.
        folder: the folder of app.py; an exported Space needs no PYTHONPATH.
    """

    def __init__(self, settings: Mapping[str, str], log: Path, folder: Path = SPACE) -> None:
        port = free_port()
        self.url, self.log = f"http://127.0.0.1:{port}", log
        own = {"GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1"}
        own |= {"PYTHONPATH": str(ROOT)} if folder == SPACE else {}
        names = os.environ.keys() - {"PYTHONPATH", "SPACE_ID"}
        environment = {**{name: os.environ[name] for name in names}, **own, **settings}
        with log.open("w") as output:
            program = [sys.executable, str(folder / "app.py")]
            self._process = start(program, env=environment, stdout=output, stderr=subprocess.STDOUT)

    def __enter__(self) -> "SpacePage":
        until(lambda: self._process.poll() is not None or status_code(f"{self.url}/page/site.json"), 600)
        assert self._process.poll() is None, f"the page did not start: {self.log.read_text()}"
        return self

    def __exit__(self, *_: object) -> None:
        end(self._process)
