"""A project with which nothing is wrong, for tests to break: a copy of this one, on tiny weights.

`cog` and `docker` are stand-ins, which say so and record how they were called; the weights are fetched from a
hub on loopback; Docker's config.json has a login.
"""

import base64
import dataclasses
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save

from snb.settings import ROOT, Settings
from snb.weights import fetch
from snb.weights.hub import Hub
from tests.hub import LoopbackHub
from tests.tiny import save_tiny
from tools.publishing.contract import derived
from tools.publishing.finding import Finding
from tools.publishing.preflight import run
from tools.publishing.project import Project

BASE, ADAPTER = "school/base", "school/adapter"
MODEL = "owner/spinoza"
LOGIN = "login-that-is-never-shown"
COPIED = (
    ".dockerignore",
    "cog.yaml",
    "predict.py",
    "requirements.txt",
    "snb/__init__.py",
    "snb/weights/hub.py",
    "weights/pins.json",
)
"""Of snb a sample: the checks read its text and run nothing of it."""
STANDIN = """#!{python}
# A stand-in for {name}, for tests: it builds nothing and pushes nothing, and writes down how it was called.
import json, os, pathlib, sys

print("stand-in for {name}: nothing is built or pushed", file=sys.stderr)
here = pathlib.Path.cwd()
sent = sorted(p.relative_to(here).as_posix() for p in here.rglob("*") if p.is_file()) if {looks} else []
with open({record!r}, "a") as file:
    call = {{"program": {name!r}, "words": sys.argv[1:], "folder": str(here), "sent": sent}}
    call["api"] = os.environ.get("REPLICATE_API_BASE_URL")
    print(json.dumps(call), file=file)
{body}
"""
COG = """
if sys.argv[1:] == ["--version"]:
    print("cog version {version} (built stand-in)")
elif sys.argv[1] == "push":
    pathlib.Path({pushed!r}).touch()
    sys.exit({status})
"""
DOCKER = """
if sys.argv[1] == "version":
    print(json.dumps({{"Client": {{"Version": "28.0.0"}}, "Server": {server}}}))
    sys.exit({status})
"""


@dataclass
class Sound:
    """Where it is, and what its parts are called."""

    home: Path
    """Holds the project, the programs, what they recorded, and Docker's configuration."""
    server: LoopbackHub

    @property
    def root(self) -> Path:
        return self.home / "project"

    @property
    def environ(self) -> dict[str, str]:
        """Nothing of this machine's own but where its programs are."""
        path = f"{self.home / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"
        return {"PATH": path, "HOME": str(self.home), "HF_ENDPOINT": self.server.url}

    def project(self, **changes: Any) -> Project:
        """What the checks take."""
        hub = Hub(endpoint=self.server.url, sleep=lambda _: None)
        environ = {**self.environ, **changes.pop("environ", {})}
        plain = Project(self.root, environ, MODEL, None, 250e6, self.home / "published.json", hub)
        return dataclasses.replace(plain, **changes)

    def findings(self, **changes: Any) -> list[Finding]:
        """Of every check."""
        return list(run(self.project(**changes)))

    def configure(self, environment: dict[str, str] | None = None, **entries: Any) -> None:
        """Changes cog.yaml; None takes an entry out."""
        file = self.root / "cog.yaml"
        config = {**yaml.safe_load(file.read_text(encoding="utf-8")), **entries}
        if environment is not None:
            config["environment"] = [f"{name}={value}" for name, value in environment.items()]
        file.write_text(yaml.safe_dump({k: v for k, v in config.items() if v is not None}), encoding="utf-8")

    def settings(self) -> Settings:
        return Settings(base_model=BASE, adapter=ADAPTER, weights_dir=self.root / "weights")

    def write(self, name: str, text: str | bytes) -> Path:
        """A file of the project."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def sparse(self, name: str, size: int) -> None:
        """A file of so many bytes that takes no room."""
        with self.write(name, b"").open("r+b") as file:
            file.truncate(size)

    def weights(self, repository: str) -> Path:
        """The folder that a repository was downloaded to."""
        return next(self.root.glob(f"weights/{repository.replace('/', '--')}@*"))

    def program(self, name: str, body: str, looks: bool = False) -> None:
        """Puts a stand-in on PATH."""
        file = self.home / "bin" / name
        file.parent.mkdir(exist_ok=True)
        record = str(self.home / "record.jsonl")
        text = STANDIN.format(python=sys.executable, name=name, record=record, body=body, looks=looks)
        file.write_text(text, encoding="utf-8")
        file.chmod(0o755)

    def cog(self, version: str = "0.23.1", status: int = 0) -> None:
        """Of a version, and ending its push with a status."""
        body = COG.format(version=version, status=status, pushed=str(self.home / "pushed"))
        self.program("cog", body, looks=True)

    def docker(self, engine: str | None = "28.0.0") -> None:
        """With an engine of a version, or none that answers."""
        server = {"Version": engine} if engine else None
        self.program("docker", DOCKER.format(server=server, status=0 if engine else 1))

    def log_in(self, **config: Any) -> None:
        """Writes Docker's configuration; without arguments what `cog login` leaves there."""
        auth = base64.b64encode(f"owner:{LOGIN}".encode()).decode()
        file = self.home / ".docker" / "config.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(config or {"auths": {"r8.im": {"auth": auth}}}))

    def calls(self, program: str) -> list[dict[str, Any]]:
        """How a stand-in was called."""
        file = self.home / "record.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [call for call in map(json.loads, lines) if call["program"] == program]


def repositories(server: LoopbackHub, folder: Path) -> None:
    """Puts a tiny base and an adapter on the hub."""
    save_tiny(folder)
    server.push(BASE, {path.name: path.read_bytes() for path in folder.iterdir()})
    adapter = save({"lora_A": torch.rand(64)})
    server.push(
        ADAPTER, {"adapter_config.json": b'{"peft_type": "LORA"}', "adapter_model.safetensors": adapter}
    )


def sound(home: Path, server: LoopbackHub) -> Sound:
    """Makes one; the hub has the repositories already."""
    made = Sound(home, server)
    for name in COPIED:
        (made.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, made.root / name)
    made.configure({"SNB_BASE_MODEL": BASE, "SNB_ADAPTER": ADAPTER, "SNB_PREPARED": "none"})
    hub = Hub(endpoint=server.url)
    fetch.ensure_base(made.settings(), hub)
    fetch.ensure_adapter(made.settings(), hub)
    made.cog()
    made.docker()
    made.log_in()
    document = derived(made.project())
    (home / "published.json").write_text(json.dumps(document), encoding="utf-8")
    return made
