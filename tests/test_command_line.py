"""What all scripts have in common: help, one line for an error, and a clean end."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import environment
import pytest

from snb.errors import SNBError
from snb.settings import ROOT
from snb.weights import hub
from tests import scripts
from tools.benchmarking import peers
from tools.command import Fault
from tools.endpoints.endpoint import Failed
from tools.serving import make_standin

SCRIPTS = sorted(file for file in (ROOT / "scripts").iterdir() if file.is_file() and not file.suffix)
PYTHON = [file.name for file in SCRIPTS if "python3" in file.read_text(encoding="utf-8").splitlines()[0]]
PATHS = {"PYTHONPATH": f"{ROOT / 'scripts'}{os.pathsep}{ROOT}"}
COMMAND = """
import sys, time, types
from tools import command
def main():
{}
sys.modules["subject"] = types.SimpleNamespace(main=main)
sys.exit(command.run("subject"))
"""
IGNORING = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
WAITS = """
try:
    print("ready", flush=True)
    time.sleep(600)
finally:
    print("tidied up", flush=True)
"""


@pytest.mark.parametrize("name", PYTHON)
def test_help_runs_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert scripts.code(name, "--help") == 0
    assert capsys.readouterr().out.startswith("usage:")


def script(folder: Path, pins: str, source: str) -> Path:
    """A script in a project with these pins, whose only command has this source."""
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "environment.py", folder / "scripts")
    for name in ("requirements.txt", "scripts/packages.txt", "scripts/packages-cpu.txt"):
        (folder / name).write_text(pins)
    (folder / "tools").mkdir()
    for name in ("__init__.py", "machine.py"):
        shutil.copy(ROOT / "tools" / name, folder / "tools")
    (folder / "tools" / "command.py").write_text(source)
    file = folder / "scripts" / "script"
    file.write_text('import environment\nenvironment.run("tools.command")\n')
    return file


def test_help_needs_no_package_and_installs_none(tmp_path: Path) -> None:
    file = script(tmp_path, "absent-package==1\n", '"""What it does."""\nimport absent_package\n')
    variables = {**os.environ, "PIP_NO_INDEX": "1", "AS_IS": ""}
    done = subprocess.run([sys.executable, file, "-h"], env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (0, "What it does.", "")
    assert not (tmp_path / ".venv").exists()


def test_a_pin_with_an_extra_is_met_by_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, f"pytest[extra]=={pytest.__version__}\nabsent-package[extra]==1\n", "")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert environment.differing() == ["absent-package[extra] absent, pinned 1"]


OFFLINE = [
    ("download-weights", "DOWNLOAD_FAILED: no network", "set HF_HUB_OFFLINE=1"),
    ("make-standin", "DOWNLOAD_FAILED: ", "no network, SNB_BASE_MODEL=FOLDER"),
    ("pin-packages", "NOT_PINNED: ", "still install"),
]


# pip imports itself and looks for its index, which takes a second.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "code", "cure"), OFFLINE)
def test_without_a_network_one_line_says_so_and_what_still_works(
    name: str,
    code: str,
    cure: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    nowhere = "http://127.0.0.1:1"
    variables = {"HF_ENDPOINT": nowhere, "PIP_INDEX_URL": nowhere, "PIP_RETRIES": "0", "PATH": str(tmp_path)}
    for variable, value in {**variables, "SNB_WEIGHTS_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(hub, "ATTEMPTS", 1)
    monkeypatch.setattr(make_standin, "STANDIN", tmp_path)
    try:
        scripts.code(name)
        lines = capfd.readouterr().out.splitlines()
    except (SNBError, Fault) as error:
        lines = [str(error)]
    assert lines[-1].startswith(code)
    assert cure in lines[-1]


@pytest.mark.parametrize(("offline", "code"), [(True, "NO_NETWORK: "), (False, "NOT_INSTALLED: ")])
def test_what_cannot_be_installed_without_a_network_is_one_line_and_never_pips(
    offline: bool, code: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "PYTHON", "false")  # in place of pip
    monkeypatch.setattr("shutil.which", lambda _: None)
    for module in (environment, peers):
        monkeypatch.setattr(module, "offline", lambda: offline)
    with pytest.raises(SystemExit, match=f"^{code}.*AS_IS=1"):
        environment.install("a-package")
    with pytest.raises(Failed, match=f"^{code}.*vllm"):
        peers.run([sys.executable, "-c", "exit('pip: no index')"], "vllm")
    assert ("pip: no index" in capfd.readouterr().err) is not offline


def command(body: str) -> str:
    return COMMAND.format(textwrap.indent(body, "    "))


def python(program: str) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    command, environment = [sys.executable, "-c", program], {**os.environ, **PATHS}
    return subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def ready(program: str) -> "subprocess.Popen[str]":
    """A running program, once it has printed `ready`."""
    child = python(program)
    assert child.stdout
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("raise command.Fault('what was wrong. What to do')", "what was wrong. What to do\n"),
        ("from snb.errors import BadSetting; raise BadSetting('a', 'b')", "BAD_SETTING: a. b\n"),
        ("open('/nowhere/at all')", "[Errno 2] No such file or directory: '/nowhere/at all'\n"),
        ("import a_package_that_is_not_there", "No module named 'a_package_that_is_not_there'\n"),
    ],
)
def test_an_error_that_a_person_can_act_on_is_one_line(fault: str, line: str) -> None:
    with python(command(fault)) as program:
        assert program.communicate() == ("", line)
    assert program.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_script_through_its_finally_and_without_a_word(number: signal.Signals) -> None:
    # As in a background job of a shell, which starts with SIGINT ignored.
    with ready(IGNORING + command(WAITS)) as program:
        program.send_signal(number)
        assert program.communicate() == ("tidied up\n", "")
    assert program.returncode == 130


def test_every_cure_is_something_to_do() -> None:
    for file in [*(ROOT / "snb").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                words = [word.value for word in node.args[1:] if isinstance(word, ast.Constant)]
                assert not [word for word in words if re.match(r"See\b", str(word))], file.name
