"""What every script does alike: help, wrong options, one line for an error, and a tidy end."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from snb.settings import ROOT
from tests import scripts

SCRIPTS = sorted(file for file in (ROOT / "scripts").iterdir() if file.is_file() and not file.suffix)
PYTHON = [file.name for file in SCRIPTS if "python3" in file.read_text(encoding="utf-8").splitlines()[0]]
UNKNOWN = "--no-such-option"
PATHS = {"PYTHONPATH": f"{ROOT / 'scripts'}{os.pathsep}{ROOT}"}
COMMAND = """
import sys, time, types
from tools import command
def main():
{}
sys.modules["subject"] = types.SimpleNamespace(main=main)
sys.exit(command.run("subject"))
"""
IGNORING = "import signal\nsignal.signal(signal.{}, signal.SIG_IGN)\n"
WAITS = """
try:
    print("ready", flush=True)
    time.sleep(600)
finally:
    print("tidied up", flush=True)
"""


@pytest.mark.parametrize("name", PYTHON)
def test_help_and_a_wrong_option_run_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert scripts.code(name, "--help") == 0
    assert capsys.readouterr().out.startswith("usage:")
    assert scripts.code(name, UNKNOWN) == 2
    assert capsys.readouterr().err.startswith("usage:")


def test_help_needs_no_package(tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    shutil.copy(ROOT / "scripts" / "environment.py", scripts)
    for name in ("cpu", "gpu"):
        (scripts / f"packages-{name}.txt").write_text("absent-package==1\n")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "command.py").write_text('"""What it does."""\nimport absent_package\n')
    script = scripts / "script"
    script.write_text('import environment\nenvironment.run("tools.command")\n')
    variables = {**os.environ, "PIP_NO_INDEX": "1", "AS_IS": ""}
    done = subprocess.run([sys.executable, script, "-h"], env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "What it does.")
    assert not (tmp_path / ".venv").exists()


def command(body: str) -> str:
    """A program whose command this is."""
    return COMMAND.format(textwrap.indent(body, "    "))


def python(program: str) -> "subprocess.Popen[str]":
    """A program as a child, with pipes."""
    pipe = subprocess.PIPE
    command, environment = [sys.executable, "-c", program], {**os.environ, **PATHS}
    return subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


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


def test_a_bug_keeps_its_traceback() -> None:
    with python(command("1 / 0")) as program:
        assert "Traceback" in program.communicate()[1]
    assert program.returncode == 1


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    with python(command("sys.stdin.read(); print('more')")) as program:
        assert program.stdin
        assert program.stdout
        assert program.stderr
        program.stdout.close()
        program.stdin.close()
        assert program.stderr.read() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_script_through_its_finally_and_without_a_word(number: signal.Signals) -> None:
    # As in a background job of a shell, where SIGINT is ignored at first.
    with python(IGNORING.format("SIGINT") + command(WAITS)) as program:
        assert program.stdout
        assert program.stdout.readline() == "ready\n"
        program.send_signal(number)
        assert program.communicate() == ("tidied up\n", "")
    assert program.returncode == 130


def test_under_nohup_a_closed_terminal_ends_nothing() -> None:
    listens = "print('ready', flush=True); print(input())"
    with python(IGNORING.format("SIGHUP") + command(listens)) as program:
        assert program.stdout
        assert program.stdout.readline() == "ready\n"
        program.send_signal(signal.SIGHUP)
        assert program.communicate("went on\n") == ("went on\n", "")
    assert program.returncode == 0


def test_every_cure_is_something_to_do() -> None:
    for file in [*(ROOT / "snb").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                words = [word.value for word in node.args[1:] if isinstance(word, ast.Constant)]
                assert not [word for word in words if re.match(r"See\b", str(word))], file.name
