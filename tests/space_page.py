"""Starts deploy/space/app.py as a Space does, for tests; it ends with its block."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tools.serving.server import ROOT, free_port

SPACE = ROOT / "deploy" / "space"


class SpacePage:
    """The page in a process of its own, on a free port of loopback.

    Args:
        settings: variables on top of this process's own; no SNB_BACKEND_URL means the engine inside.
        log: the file its output goes to.
        folder: where app.py is; an exported Space needs no PYTHONPATH.
    """

    def __init__(self, settings: Mapping[str, str], log: Path, folder: Path = SPACE) -> None:
        port = free_port()
        self.url, self.log = f"http://127.0.0.1:{port}", log
        path = {"PYTHONPATH": str(ROOT)} if folder == SPACE else {}
        mine = {"GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1", **path}
        inherited = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SPACE_ID")
        }
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(folder / "app.py")],
                env={**inherited, **mine, **settings},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> "SpacePage":
        while self._process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}/page/site.json").close()
                return self
            except urllib.error.URLError:
                time.sleep(0.1)
        raise AssertionError(f"the page did not start: {self.log.read_text()}")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
