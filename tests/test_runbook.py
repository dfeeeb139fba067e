"""docs/repli.md: every command of it is run, or dry-run by the very program that it names.

The blocks run as a reader would paste them, in one shell and in order, with stand-ins on PATH that write down
how they were called and do nothing. Then each call is given to whoever can judge it here: this package's
scripts, the real command lines of Hugging Face, SkyPilot, Vast.ai, Docker and Compose with no network behind
them, and curl. What goes to `cog`, `runpodctl` and `netlify` is held against their documented options only.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from snb.settings import ROOT
from tests.hosts import tools
from tests.tiny import save_tiny
from tools.serving.server import Server

RUNBOOK = ROOT / "docs" / "repli.md"
BLOCK = re.compile(r"^( *)```sh\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("cog", "curl", "docker", "hf", "netlify", "runpodctl", "sky", "vastai")
WRITE_DOWN = """#!/usr/bin/env python3
# A stand-in of a test: it writes down how it was called and does nothing.
import json, os, pathlib, sys
with pathlib.Path(os.environ["CALLS"]).open("a") as calls:
    calls.write(json.dumps(sys.argv) + "\\n")
"""
PUT_IN = {"COMPTE": "compte", "OFFRE": "1", "INSTANCE": "1", "VERSION": 64 * "0"}
"""What a reader puts in the place of capitals."""
GIVEN = {
    "ADRESSE": "http://127.0.0.1:9",
    "PREMIERE": "http://127.0.0.1:9",
    "SECONDE": "http://127.0.0.1:10",
    "REPLICATE_API_TOKEN": "r8-of-the-reader",
    "HF_TOKEN": "hf-of-the-reader",
}
"""What the page takes for granted: tokens, and addresses that the reader has by then."""
NOWHERE = "http://127.0.0.1:9"
"""Nothing listens there, so a command that is understood ends with a failed connection."""
UNKNOWN = "--an-option-that-nobody-has"
DOCUMENTED = {
    "cog": {"build", "--tag"},
    "netlify": {"env:set", "deploy", "--secret", "--trigger", "--prod"},
    "runpodctl": {
        *("pod", "create", "delete", "--name", "--image", "--registry-auth-id", "--gpu-id", "--cloud-type"),
        *("--container-disk-in-gb", "--min-cuda-version", "--ports", "--terminate-after", "--env"),
    },
}


def blocks() -> list[str]:
    """The shell blocks of the page, in order, without the indentation of the lists that they are in."""
    text = RUNBOOK.read_text(encoding="utf-8")
    for capitals, value in PUT_IN.items():
        text = re.sub(rf"\b{capitals}\b", value, text)
    found = BLOCK.finditer(text)
    return [re.sub(rf"^{match[1]}", "", match[2], flags=re.MULTILINE) for match in found]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the project's; its scripts, and the programs in `bin`, are stand-ins."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "bin").mkdir()
    (folder / "scripts").mkdir()
    shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns("space"))
    own = [path.name for path in (ROOT / "scripts").iterdir() if os.access(path, os.X_OK) and path.is_file()]
    for path in [*(folder / "bin" / name for name in PROGRAMS), *(folder / "scripts" / name for name in own)]:
        path.write_text(WRITE_DOWN)
        path.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def calls(desk: Path) -> list[list[str]]:
    """Every program that the page calls, with its arguments as the shell gave them."""
    log = desk / "calls"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks())],
        cwd=desk,
        env={"PATH": f"{desk / 'bin'}:{os.environ['PATH']}", "HOME": str(desk), "CALLS": str(log), **GIVEN},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in log.read_text().splitlines()]


def of(calls: list[list[str]], program: str) -> Iterator[list[str]]:
    """The arguments of each call of a program."""
    found = [arguments for called, *arguments in calls if called.endswith(program)]
    assert found, f"the page does not call {program}"
    yield from found


def said(*command: str | Path, **environment: str) -> tuple[int, str]:
    """How a program ends, and all that it says."""
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_every_program_that_the_page_calls_is_judged_by_a_test(calls: list[list[str]]) -> None:
    called = {Path(name).name for name, *_ in calls}
    assert called >= {*PROGRAMS, "smoke-test", "push", "doctor", "drill", "costs", "serve"}
    lines = sum(len(re.findall(r"^\S", block, re.MULTILINE)) for block in blocks())
    shell = sum(len(re.findall(r"^(export|printf) ", block, re.MULTILINE)) for block in blocks())
    assert len(calls) == lines - shell, "a line of the page called nothing, or more than one program"


def test_our_own_scripts_understand_their_command_lines(calls: list[list[str]]) -> None:
    own = [(Path(name).name, rest) for name, *rest in calls if Path(name).parent.name == "scripts"]
    for name, arguments in own:
        code, output = said(ROOT / "scripts" / name, *arguments, UNKNOWN)
        assert code == 2, (name, output)
        # All else was right, or argparse would have named that first.
        assert output.rstrip().endswith(f"unrecognized arguments: {UNKNOWN}"), (name, output)


def test_the_price_of_the_day_is_printed(calls: list[list[str]]) -> None:
    for arguments in of(calls, "scripts/costs"):
        code, output = said(ROOT / "scripts" / "costs", *arguments)
        assert code == 0
        assert "30 pupils, 5 questions each" in output


def test_hugging_face_understands_its_commands(calls: list[list[str]], desk: Path) -> None:
    for folder in ("weights/prepared", "build/page"):  # which the reader has made by then
        (desk / folder).mkdir(parents=True, exist_ok=True)
    for arguments in of(calls, "bin/hf"):
        program = ROOT / ".venv" / "bin" / "hf"
        if not program.exists():
            pytest.skip("hf is not in .venv")
        done = subprocess.run(
            [program, *arguments],
            cwd=desk,
            env={**os.environ, **GIVEN, "HF_ENDPOINT": NOWHERE, "SNB_API_KEY": "x", "HOME": str(desk)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        output = done.stdout + done.stderr
        assert done.returncode == 1, (arguments, output)
        assert "onnect" in output, (arguments, output)


def test_skypilot_understands_its_commands(calls: list[list[str]], desk: Path) -> None:
    parse = """if True:
        import json, sys
        from sky.client.cli.command import cli
        for arguments in json.loads(sys.argv[1]):
            context, command = cli.make_context("sky", [], resilient_parsing=True), cli
            while hasattr(command, "commands"):
                _, command, arguments = command.resolve_command(context, arguments)
            command.make_context("sky", arguments)
    """
    command, environment = [tools() / "python", "-c", parse], {"HOME": str(desk), "SNB_API_KEY": "x"}
    code, output = said(*command, json.dumps(list(of(calls, "bin/sky"))), **environment)
    assert code == 0, output
    assert said(*command, json.dumps([["down", UNKNOWN]]), **environment)[0] == 1


def test_vast_understands_its_commands(calls: list[list[str]], desk: Path) -> None:
    for arguments in of(calls, "bin/vastai"):
        command = [tools() / "vastai", "--url", NOWHERE, "--api-key", "x", "--retry", "1"]
        code, output = said(*command, *arguments, HOME=str(desk))
        assert code != 2, (arguments, output)
        assert "usage:" not in output
        assert "127.0.0.1" in output, (arguments, output)


def test_docker_and_compose_understand_their_commands(calls: list[list[str]], desk: Path) -> None:
    [compose] = tools().parent.glob("lib/python3*/site-packages/compose/docker-compose")
    for arguments in of(calls, "bin/docker"):
        program, rest = (compose, arguments[1:]) if arguments[0] == "compose" else ("docker", arguments)
        if not shutil.which(program):
            continue  # the client alone is enough; a machine without it cannot say
        code, output = said(program, *rest, "--help", HOME=str(desk))
        assert code == 0, (arguments, output)
        assert said(program, *rest, UNKNOWN, "--help", HOME=str(desk))[0] != 0


def test_the_settings_that_the_page_writes_are_those_that_compose_reads(
    calls: list[list[str]], desk: Path
) -> None:
    [compose] = tools().parent.glob("lib/python3*/site-packages/compose/docker-compose")
    code, output = said(compose, "--file", desk / "deploy" / "compose.yaml", "config", HOME=str(desk))
    assert code == 0, output
    assert "SNB_WEIGHTS_DIR: /src/weights" in output
    assert "image: ghcr.io/compte/spinoza:2026-11" in output
    assert re.search(r"SNB_API_KEY: [0-9a-f]{64}", output)


def test_curl_understands_its_commands_and_sends_json(calls: list[list[str]]) -> None:
    for arguments in of(calls, "bin/curl"):
        # Through a proxy that is not there: curl's 7 is a failed connection, its 2 a bad command line.
        assert said("curl", *arguments, "--proxy", NOWHERE)[0] == 7, arguments
        assert any(argument.startswith("https://api.replicate.com/v1/") for argument in arguments)
        assert "Authorization: Bearer r8-of-the-reader" in arguments
        if "--data" in arguments:
            body = json.loads(arguments[arguments.index("--data") + 1])
            assert {"min_instances", "max_instances"} <= body.keys()


@pytest.mark.parametrize("program", DOCUMENTED)
def test_what_nobody_here_can_judge_uses_documented_options_only(
    calls: list[list[str]], program: str
) -> None:
    for arguments in of(calls, f"bin/{program}"):
        options = {argument for argument in arguments if argument.startswith("--")}
        assert options <= DOCUMENTED[program], arguments
        assert arguments[0] in DOCUMENTED[program]
        if "--env" in arguments:
            assert len(json.loads(arguments[arguments.index("--env") + 1])["SNB_API_KEY"]) == 64


@pytest.mark.server
def test_the_check_that_the_page_begins_with_passes_on_a_server_that_is_well(tmp_path: Path) -> None:
    key = "0123456789abcdef0123456789abcdef"
    settings = {
        "SNB_BASE_MODEL": str(save_tiny(tmp_path / "base", snb_notice="a random model")),
        "SNB_ADAPTER": "none",
        "SNB_API_KEY": key,
    }
    with (tmp_path / "log").open("w") as log, Server(settings, log=log) as server:
        block = next(block for block in blocks() if "smoke-test" in block)
        environment = {**os.environ, "ADRESSE": server.url, "SNB_API_KEY": key}
        done = subprocess.run(
            ["bash", "-euc", block], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All well" in done.stdout


def test_links_within_the_page_lead_somewhere() -> None:
    text = RUNBOOK.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
