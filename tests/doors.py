"""Starts what the JavaScript tests talk to, prints where as a line of JSON, and ends with its standard input.

python tests/doors.py tiny|standin [replicate] [space] [rich] [page]
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import environment  # noqa: E402, F401  puts every folder of scripts/ on the path
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


def door(program: str, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Another test server in a process of its own; it ends when its standard input does."""
    command = [sys.executable, str(ROOT / "tests" / program), *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True)
    assert process.stdout
    return process, json.loads(process.stdout.readline())["url"]


def main(kind: str, *doors: str) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = stack.enter_context((folder / "cog.log").open("w"))
        server = stack.enter_context(Server(settings(kind, folder), log=log))
        urls = {"cog": server.url, "log": str(folder / "cog.log")}
        started = []
        for name in doors:
            if name == "page":
                page = SpacePage({"SNB_BACKEND_URL": server.url}, folder / "page.log")
                urls[name] = stack.enter_context(page).url
                continue
            program = "replicate_server.py" if name == "replicate" else "gradio_space.py"
            process, urls[name] = door(program, server.url, *(["--rich"] if name == "rich" else []))
            started.append(process)
        server.wait()
        print(json.dumps(urls), flush=True)
        sys.stdin.read()
        for process in started:
            process.terminate()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that what was started ends too
    main(*sys.argv[1:])
