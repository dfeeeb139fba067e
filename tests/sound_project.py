"""A project with nothing wrong, for tests to break: a copy of this one, with tiny weights.

`cog`, `docker` and the smoke test are stand-ins that record how they were called; the weights come from a hub
on loopback, the published version from the Replicate test server, and Docker's config.json has a login.
"""

import atexit
import base64
import functools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from detect_secrets.core.scan import scan_file
from safetensors.torch import save

from snb.settings import ROOT, Settings
from snb.weights import fetch, prepared
from snb.weights.hub import Hub
from tests.hub import LoopbackHub
from tests.replicate_server import MODEL, ReplicateServer
from tests.tiny import save_tiny
from tools.preparing import preparation
from tools.publishing import doctor, image, layers, secret_scan
from tools.publishing.finding import Finding
from tools.publishing.project import Project

BASE, ADAPTER = "school/base", "school/adapter"
LOGIN, TOKEN = "login-that-is-never-shown", "r8_of_no_account"
OLD, NEW = "a" * 64, "b" * 64
COPIED = (
    ".dockerignore",
    "cog.yaml",
    "predict.py",
    "pyproject.toml",
    "requirements.txt",
    "weights/pins.json",
)
SCANNED: dict[tuple[str, bytes], list[Any]] = {}
STANDIN = """#!{python}
import json, pathlib, sys
here = pathlib.Path.cwd()
call = {{"program": {name!r}, "words": sys.argv[1:]}}
if {name!r} == "cog" and sys.argv[1] in ("push", "build"):
    call["sent"] = sorted(p.relative_to(here).as_posix() for p in here.rglob("*") if p.is_file())
    pathlib.Path({pushed!r}).touch()
with open({record!r}, "a") as file:
    print(json.dumps(call), file=file)
{body}
"""


class Api(ReplicateServer):
    """Replicate's API, with a model that gets a new version when the file `pushed` appears."""

    pushed: Path
    first: str | None = OLD
    second: str | None = NEW

    @property
    def version(self) -> str | None:
        return self.second if self.pushed.exists() else self.first


@dataclass
class Sound:
    home: Path
    """Holds the project, the programs, what they recorded, and Docker's configuration."""
    hub: LoopbackHub
    api: Api

    @property
    def root(self) -> Path:
        return self.home / "project"

    def project(self, hardware: str | None = "t4") -> Project:
        return Project(self.root, MODEL, hardware)

    def findings(self) -> list[Finding]:
        return list(doctor.findings(self.project()))

    def configure(self, environment: dict[str, str] | None = None, **entries: Any) -> None:
        file = self.root / "cog.yaml"
        config = {**yaml.safe_load(file.read_text(encoding="utf-8")), **entries}
        if environment is not None:
            config["environment"] = [f"{name}={value}" for name, value in environment.items()]
        file.write_text(yaml.safe_dump(config), encoding="utf-8")

    def write(self, name: str, text: str, size: int | None = None) -> None:
        """Writes a file of the project; `size` extends it to so many bytes, as a sparse file."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        if size:
            os.truncate(file, size)

    def weights(self, repository: str) -> Path:
        return next(self.root.glob(f"weights/{repository.replace('/', '--')}@*"))

    def program(self, name: str, body: str) -> None:
        """Writes a stand-in for a program, on PATH or at a path below `home`."""
        file = self.home / "bin" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        record, pushed = str(self.home / "record.jsonl"), str(self.api.pushed)
        text = STANDIN.format(python=sys.executable, name=file.name, record=record, pushed=pushed, body=body)
        file.write_text(text, encoding="utf-8")
        file.chmod(0o755)

    def prepare(self, precision: str) -> Path:
        """Prepares weights from base and adapter; returns their folder."""
        folder = self.root / "weights" / prepared.FOLDER
        settings = Settings(base_model=BASE, adapter=ADAPTER, weights_dir=folder.parent, device="cpu")
        preparation.prepare(preparation.Recipe.of(settings, precision), folder)
        self.configure({"SNB_BASE_MODEL": BASE, "SNB_ADAPTER": ADAPTER})
        return folder

    def calls(self, program: str) -> list[dict[str, Any]]:
        file = self.home / "record.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [call for call in map(json.loads, lines) if call["program"] == program]


@functools.cache
def repositories() -> dict[str, dict[str, bytes]]:
    """The files of a tiny base and of an adapter, by repository."""
    with tempfile.TemporaryDirectory() as folder:
        save_tiny(Path(folder))
        base = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    config = b'{"peft_type": "LORA", "r": 1, "target_modules": ["q_proj"]}'
    module, shapes = (
        "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight",
        {"A": (1, 64), "B": (64, 1)},
    )
    tensors = {module.format(layer, part): torch.rand(shapes[part]) for layer in (0, 1) for part in shapes}
    return {BASE: base, ADAPTER: {"adapter_config.json": config, "adapter_model.safetensors": save(tensors)}}


@functools.cache
def downloaded() -> Path:
    """A folder of weights, downloaded by the project's own code from a hub with `repositories`."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    with LoopbackHub() as hub:
        for name, files in repositories().items():
            hub.push(name, files)
        settings = Settings(base_model=BASE, adapter=ADAPTER, weights_dir=folder)
        fetch.ensure_base(settings, Hub(endpoint=hub.url))
        fetch.ensure_adapter(settings, Hub(endpoint=hub.url))
    return folder


def scan_once(path: str) -> list[Any]:
    """What detect-secrets finds in a file; cached, since the files that all copies share take a core 2 s."""
    file = Path(path)
    key = file.name, file.read_bytes()
    if key not in SCANNED:
        SCANNED[key] = [*scan_file(path)]
    return SCANNED[key]


@contextmanager
def sound(home: Path, patch: pytest.MonkeyPatch) -> Iterator[Sound]:
    """Makes a sound project, and points this process's environment to its programs and servers."""
    with LoopbackHub() as hub, Api("http://127.0.0.1:1", TOKEN) as api:
        api.pushed = home / "pushed"
        made = Sound(home, hub, api)
        for name, files in repositories().items():
            hub.push(name, files)
        for name in COPIED:
            (made.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, made.root / name)
        shutil.copytree(ROOT / "snb", made.root / "snb", ignore=shutil.ignore_patterns("__pycache__"))
        made.configure({"SNB_BASE_MODEL": BASE, "SNB_ADAPTER": ADAPTER, "SNB_PREPARED": "none"})
        shutil.copytree(downloaded(), made.root / "weights", dirs_exist_ok=True)
        made.program("cog", "print('cog version 0.23.1')")
        made.program("docker", "print('28.0.0')")
        made.program("../project/scripts/smoke-test", "")
        auth = base64.b64encode(f"owner:{LOGIN}".encode()).decode()
        made.write("../.docker/config.json", json.dumps({"auths": {"r8.im": {"auth": auth}}}))
        for name in ("HF_TOKEN", "SNB_API_KEY", "DOCKER_CONFIG"):
            patch.delenv(name, raising=False)
        variables = {"PATH": str(home / "bin"), "HOME": str(home), "HF_ENDPOINT": hub.url}
        variables |= {"REPLICATE_API_TOKEN": TOKEN, "REPLICATE_BASE_URL": api.url}
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr(doctor, "ROOT", made.root)
        patch.setattr(image, "ROOT", made.root)
        patch.setattr(secret_scan, "scan_file", scan_once)
        patch.setattr(layers, "_free", lambda: ("/disk", 10**11))
        yield made
