"""docs/repli.md: its command lines are given to the very programs that they name, with no network.

The blocks run as a reader would paste them, in one shell and in order, with stand-ins on PATH that write down
how they were called and do nothing. Then each call is parsed by whoever can judge it here: this package's
scripts, and the real command lines of Hugging Face, SkyPilot, Vast.ai, Docker and Compose.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from snb.settings import ROOT
from tests import scripts
from tests.hosts import tools

BLOCK = re.compile(r"^( *)```sh\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("cog", "curl", "docker", "hf", "netlify", "runpodctl", "sky", "vastai")
WRITE_DOWN = """#!/usr/bin/env python3
import json, os, pathlib, sys
with pathlib.Path(os.environ["CALLS"]).open("a") as calls:
    calls.write(json.dumps(sys.argv) + "\\n")
"""
NOWHERE = "http://127.0.0.1:9"
"""Nothing listens there, so a command that is understood ends with a failed connection."""
READER = {"COMPTE": "compte", "OFFRE": "1", "INSTANCE": "1", "VERSION": 64 * "0"}
"""What a reader puts in the place of capitals."""
GIVEN = dict.fromkeys(("ADRESSE", "PREMIERE", "SECONDE", "REPLICATE_API_TOKEN", "HF_TOKEN"), NOWHERE)
"""What the page takes for granted: tokens, and addresses that the reader has by then."""
Calls = dict[str, list[list[str]]]
UNKNOWN = "--an-option-that-nobody-has"
SKY = """
import json, sys
from sky.client.cli.command import cli

for arguments in json.loads(sys.argv[1]):
    context, command = cli.make_context("sky", [], resilient_parsing=True), cli
    while hasattr(command, "commands"):
        _, command, arguments = command.resolve_command(context, arguments)
    command.make_context("sky", arguments)
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the project's; its scripts, and the programs in `bin`, are stand-ins."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns("space"))
    for name in ("bin", "scripts", "weights/prepared", "build/page"):
        (folder / name).mkdir(parents=True)
    own = [path.name for path in (ROOT / "scripts").iterdir() if os.access(path, os.X_OK) and path.is_file()]
    for path in [*(folder / "bin" / name for name in PROGRAMS), *(folder / "scripts" / name for name in own)]:
        path.write_text(WRITE_DOWN)
        path.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def calls(desk: Path) -> Calls:
    """The arguments of each call of each program, as the shell gave them."""
    text = (ROOT / "docs" / "repli.md").read_text(encoding="utf-8")
    for capitals, value in READER.items():
        text = re.sub(rf"\b{capitals}\b", value, text)
    blocks = [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in BLOCK.findall(text)]
    path = {"PATH": f"{desk / 'bin'}:{os.environ['PATH']}", "HOME": str(desk), "CALLS": str(desk / "calls")}
    shell = ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)]
    done = subprocess.run(shell, cwd=desk, env={**path, **GIVEN}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: Calls = {}
    for name, *arguments in map(json.loads, (desk / "calls").read_text().splitlines()):
        found.setdefault(name.removeprefix(f"{desk}/bin/"), []).append(arguments)
    assert found.keys() >= {*PROGRAMS, "scripts/smoke-test", "scripts/push", "scripts/doctor"}
    return found


def ended(desk: Path, *command: str | Path) -> tuple[int, str]:
    """How a program ends, and all that it prints."""
    environment = {**os.environ, **GIVEN, "HF_ENDPOINT": NOWHERE, "SNB_API_KEY": "x", "HOME": str(desk)}
    done = subprocess.run(
        command, cwd=desk, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def test_our_own_scripts_understand_their_command_lines(
    calls: Calls, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    for script in [name for name in calls if name.startswith("scripts/")]:
        for arguments in calls[script]:
            # All else was right, or argparse would have named that first.
            assert scripts.code(Path(script).name, *arguments, UNKNOWN) == 2
            assert capsys.readouterr().err.rstrip().endswith(f"unrecognized arguments: {UNKNOWN}")


@pytest.mark.slow
def test_hugging_face_and_vast_understand_theirs(calls: Calls, desk: Path) -> None:
    """Seconds: each call is a start of somebody else's program."""
    vast = [str(tools() / "vastai"), "--url", NOWHERE, "--api-key", "x", "--retry", "1"]
    commands = [[str(ROOT / ".venv" / "bin" / "hf"), *arguments] for arguments in calls["hf"]]
    for command in commands + [[*vast, *arguments] for arguments in calls["vastai"]]:
        code, output = ended(desk, *command)
        assert (code == 2, "usage:" in output.lower()) == (False, False), output
        assert "onnect" in output or NOWHERE.removeprefix("http://") in output, output


@pytest.mark.slow
def test_skypilot_understands_its_commands(calls: Calls, desk: Path) -> None:
    """Seconds: SkyPilot's command line is imported twice."""
    for arguments, status in ((calls["sky"], 0), ([["down", UNKNOWN]], 1)):
        code, output = ended(desk, tools() / "python", "-c", SKY, json.dumps(arguments))
        assert code == status, output


def test_docker_and_compose_understand_theirs(calls: Calls, desk: Path) -> None:
    [compose] = tools().parent.glob("lib/python3*/site-packages/compose/docker-compose")
    for name, *arguments in calls["docker"]:
        command: list[str | Path] = [compose] if name == "compose" else ["docker", name]
        if shutil.which(command[0]):  # a machine without Docker's client cannot tell
            assert ended(desk, *command, *arguments, "--help")[0] == 0, arguments
            assert ended(desk, *command, *arguments, UNKNOWN, "--help")[0] != 0
