"""What docs/SECURITY.md promises about packages and code, checked in the files themselves."""

import ast
import json
import re
import socket
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import environment
import httpx2
import pytest
import yaml

from snb.settings import ROOT
from tests import scripts
from tools.machine import pins
from tools.supplying import audit, pin_packages

PIN = re.compile(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[0-9][A-Za-z0-9.]*")
SHIPPED = [ROOT / "predict.py", *sorted((ROOT / "snb").rglob("*.py"))]
SCRIPTS = [ROOT / "scripts" / "environment.py", *sorted((ROOT / "tools").rglob("*.py"))]


def test_every_file_that_names_the_license_names_the_one_in_license() -> None:
    assert "Apache License\n" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    lock = json.loads((ROOT / "client" / "package-lock.json").read_text(encoding="utf-8"))
    package = json.loads((ROOT / "client" / "package.json").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {one["license"] for one in (project, package, lock["packages"][""])} == {"Apache-2.0"}


def test_every_package_is_pinned_and_every_one_that_was_chosen_has_its_reason() -> None:
    for file in [ROOT / "requirements.txt", *ROOT.glob("scripts/*.txt")]:
        assert not [pin for pin in pins(file) if not PIN.fullmatch(pin)], file.name
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    for pin in sum(project["optional-dependencies"].values(), project["dependencies"]):
        assert re.search(rf'"{re.escape(pin)}",\s*# \S', text), f"{pin} has no reason"


def test_the_files_of_pins_are_those_of_pyproject(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen("gpu") <= {*pins(ROOT / "requirements.txt")}, "run scripts/pin-packages"
    for name in ("gpu", "cpu"):
        monkeypatch.setattr(environment, "has_gpu", lambda name=name: name == "gpu")
        wanted = {f"{package}=={version}" for package, version in environment.wanted().items()}
        assert chosen(name, "tools", "dev") <= wanted, f"run scripts/pin-packages: {name}"


def test_a_package_is_pinned_once_but_for_those_of_the_group_cpu() -> None:
    names = Counter(pin.split("==")[0] for file in pin_packages.FILES for pin in pins(ROOT / file))
    assert [name for name, count in names.items() if count > 1] == ["torch"]
    assert {*pins(ROOT / "scripts" / "packages-cpu.txt")} == chosen("cpu") - chosen()


def test_the_pins_of_the_image_are_the_versions_that_are_tested() -> None:
    """Except torch, which is another release for the CPU."""
    pinned = [pin.split("==") for pin in pins(ROOT / "requirements.txt") if not pin.startswith("torch==")]
    assert pinned == [[name, metadata.version(name)] for name, _ in pinned]


def chosen(*extras: str) -> set[str]:
    """What pyproject.toml itself pins, in its dependencies and in these groups."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    return {normal(pin) for group in groups for pin in group if "==" in pin}


def normal(pin: str) -> str:
    name, _, version = pin.partition("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def test_the_image_is_built_from_named_versions() -> None:
    build = yaml.safe_load((ROOT / "cog.yaml").read_text(encoding="utf-8"))["build"]
    assert f"cog=={build['sdk_version']}" in pins(ROOT / "requirements.txt")
    assert f"--python-version={build['python_version']}" in pin_packages.TARGET
    assert build["cuda"]


def test_what_is_said_of_cog_s_faults_is_of_the_version_that_is_pinned() -> None:
    """With another version, look for each of these faults again."""
    text = (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")
    assert f"cures** ({metadata.version('cog')})" in text


def test_every_test_that_is_named_beside_a_promise_exists() -> None:
    text = (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")
    files = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("test_*.py"))
    tests = re.findall(r"^(?:async )?def (test_\w+)", files, re.MULTILINE)
    named = re.findall(r"`-k (\w+)`", text)
    assert named
    assert not [part for part in named if not any(part in test for test in tests)]


def test_the_tests_reach_nothing_but_this_machine() -> None:
    with pytest.raises(OSError, match="a test tried to reach"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def calls(file: Path) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg or "": word.value for word in node.keywords}


def imported(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_the_image_starts_no_program_but_cog_s_server_and_reads_no_pickle() -> None:
    banned = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "yaml.load"}
    unwanted = {"subprocess", "multiprocessing", "pickle", "marshal", "shelve", "dill", "joblib", "runpy"}
    starts = ("os.exec", "os.spawn", "os.posix_spawn", "os.fork", "asyncio.create_subprocess_")
    for file in SHIPPED:
        assert imported(file) & unwanted == ({"subprocess"} if file.name == "process_group.py" else set())
        for name, words in calls(file):
            assert name not in banned, f"{file.name}: {name}"
            assert not name.startswith(starts), f"{file.name}: {name}"
            assert "trust_remote_code" not in words, f"{file.name}: {name}"


def test_no_script_hands_words_to_a_shell_or_runs_code_of_a_repository() -> None:
    banned = {"eval", "exec", "os.system", "os.popen", "yaml.load", "asyncio.create_subprocess_shell"}
    banned |= {"subprocess.getoutput", "subprocess.getstatusoutput"}
    for file in SCRIPTS:
        for name, words in calls(file):
            assert name not in banned, f"{file.name}: {name}"
            assert not {"shell", "trust_remote_code"} & words.keys(), f"{file.name}: {name}"
            if name == "torch.load":
                assert ast.unparse(words["weights_only"]) == "True"


def osv(monkeypatch: pytest.MonkeyPatch, *vulnerable: str) -> None:
    """Replaces OSV's API by one with an advisory about each release that starts with one of `vulnerable`."""

    def result(query: dict[str, Any]) -> dict[str, Any]:
        release = f"{query['package']['name']} {query['version']}"
        return {"vulns": [{"id": "PYSEC-2027-1"}]} if release.startswith(vulnerable) else {}

    def reply(request: httpx2.Request) -> httpx2.Response:
        queries = json.loads(request.content)["queries"]
        return httpx2.Response(200, json={"results": [*map(result, queries)]}, request=request)

    monkeypatch.setattr(httpx2, "post", httpx2.Client(transport=httpx2.MockTransport(reply)).post)


def test_a_known_vulnerability_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    osv(monkeypatch, "jinja2 2.10")
    assert scripts.code("audit") == 0
    assert re.fullmatch(r"0 of \d+ packages have a known vulnerability\.\n", capsys.readouterr().out)
    osv(monkeypatch, "jinja2 2.10", "urllib3", "gradio ")  # the image's, the page's
    assert scripts.code("audit") == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["gradio", "urllib3"]
    assert lines[0].endswith(": https://osv.dev/PYSEC-2027-1")
    assert last.startswith("2 of ")


def test_no_answer_and_one_that_cannot_be_believed_are_no_clean_bill(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(audit, "API", "http://127.0.0.1:1")
        assert scripts.code("audit") == audit.NOT_AUDITED
    osv(monkeypatch)  # without an advisory about audit.KNOWN
    assert scripts.code("audit") == audit.NOT_AUDITED
    portal = httpx2.MockTransport(lambda request: httpx2.Response(200, text="<html>", request=request))
    monkeypatch.setattr(httpx2, "post", httpx2.Client(transport=portal).post)
    assert scripts.code("audit") == audit.NOT_AUDITED
    assert re.fullmatch(r"(NOT AUDITED: .*\n){3}", capsys.readouterr().out)
