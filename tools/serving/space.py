"""Serves the page of deploy/space on this machine until Ctrl-C or SIGTERM; or writes a Space's repository."""

import argparse
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from snb.front.process_group import end, start
from snb.settings import ROOT
from tools.machine import pins
from tools.serving import local
from tools.serving.server import before

SPACE = ROOT / "deploy" / "space"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=7860, help="TCP port (default 7860)")
    parser.add_argument("--export", metavar="FOLDER", type=Path, help="write the Space's repository there")
    inside = "with --export: for a GPU, with the engine inside"
    parser.add_argument("--engine", action="store_true", help=inside)
    options = parser.parse_args()
    if options.export:
        export(options.export, options.engine)
        return 0
    try:
        # With SNB_BACKEND_URL the page asks that backend, and needs no weights here.
        return serve(options.port, {} if os.environ.get("SNB_BACKEND_URL") else local.settings())
    except KeyboardInterrupt:
        return 0


def serve(port: int, settings: Mapping[str, str]) -> int:
    variables = {"PYTHONPATH": before("PYTHONPATH", ROOT), "GRADIO_SERVER_PORT": str(port), **settings}
    process = start([sys.executable, SPACE / "app.py"], env={**os.environ, **variables})
    try:
        return process.wait()
    finally:
        end(process)


def export(folder: Path, engine: bool) -> None:
    """Writes the Space's repository to `folder`: the page at its root, and what it needs of the package."""
    unseen = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SPACE, folder, dirs_exist_ok=True, ignore=unseen)
    shutil.copytree(ROOT / "snb", folder / "snb", dirs_exist_ok=True, ignore=unseen)
    (folder / "weights").mkdir(exist_ok=True)
    shutil.copy(ROOT / "weights" / "pins.json", folder / "weights")
    shutil.copy(ROOT / "LICENSE", folder)
    if engine:
        wanted = {pin for part in (SPACE, ROOT) for pin in pins(part / "requirements.txt")}
        (folder / "requirements.txt").write_text("\n".join(sorted(wanted)), encoding="utf-8")
    print(folder)
