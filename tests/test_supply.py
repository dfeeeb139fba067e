"""What docs/SECURITY.md promises of packages and code, checked in the files themselves."""

import ast
import json
import re
import runpy
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import advisories
import environment
import packages
import pytest
import yaml

from snb.settings import ROOT

PIN = re.compile(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[0-9][A-Za-z0-9.]*")
SHIPPED = [ROOT / "predict.py", *sorted((ROOT / "snb").rglob("*.py"))]
SCRIPTS = [
    file
    for file in sorted((ROOT / "scripts").rglob("*"))
    if file.suffix == ".py" or (not file.suffix and file.is_file() and "python3" in file.read_text()[:40])
]


def test_every_requirement_is_an_exact_version() -> None:
    files = [ROOT / "requirements.txt", *(ROOT / "scripts").glob("requirements*.txt")]
    files += (ROOT / "scripts").glob("constraints*.txt")
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            pin = line.split("#")[0].strip()
            assert not pin or PIN.fullmatch(pin), f"{file.name}: {line}"


def test_every_package_that_was_chosen_has_its_reason() -> None:
    by_hand = packages.FILE.read_text(encoding="utf-8").split(packages.MARK)[0].splitlines()
    assert not [line for line in by_hand if line and not line.partition("#")[2].strip()]


def test_requirements_hold_all_that_they_bring_in() -> None:
    assert packages.FILE.read_text(encoding="utf-8") == packages.written(), "run scripts/pin-packages"
    pinned = {packages.normal(pin.split("==")[0]) for pin in advisories.image()}
    assert {"pydantic-core", "h11", "coglet", "markupsafe"} <= pinned
    assert not {"pytest", "triton"} & pinned


def test_what_is_for_another_machine_or_an_extra_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {
        "torch": ["Other_Name>=1", "nvidia-x==1", 'w; sys_platform == "win32"'],
        "other-name": ['t; extra == "test"', "exact==3", 'old; python_version < "3.11"'],
        "exact": ["torch"],
    }
    monkeypatch.setattr(packages.metadata, "requires", tree.get)
    assert packages.closure(["torch"]) == {"torch", "other-name", "exact"}


def test_the_image_is_built_from_named_versions() -> None:
    build = yaml.safe_load((ROOT / "cog.yaml").read_text(encoding="utf-8"))["build"]
    assert f"cog=={build['sdk_version']}" in environment.read(packages.FILE, chosen=True)
    assert build["python_version"] == packages.IMAGE["python_version"]
    assert build["cuda"]


def calls(file: Path) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Every call in a file: its dotted name and its keyword arguments."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg or "": word.value for word in node.keywords}


def imported(file: Path) -> set[str]:
    """The top-level packages that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_the_image_starts_no_program_and_reads_no_pickle(file: Path) -> None:
    assert not imported(file) & {"subprocess", "pickle", "marshal", "shelve", "dill", "joblib", "runpy"}
    for name, words in calls(file):
        assert name not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load"), (
            name
        )
        assert not name.startswith(("os.exec", "os.spawn")), name
        assert name != "yaml.load", "yaml.safe_load"
        assert "trust_remote_code" not in words, name


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.name)
def test_no_script_hands_words_to_a_shell_or_runs_code_of_a_repository(file: Path) -> None:
    for name, words in calls(file):
        assert name not in ("eval", "exec", "os.system", "os.popen", "yaml.load"), name
        assert not {"shell", "trust_remote_code"} & words.keys(), name
        if name == "torch.load":
            assert ast.unparse(words["weights_only"]) == "True"


class Advisories(BaseHTTPRequestHandler):
    """A stand-in for OSV's query, with the form of its answers."""

    published: dict[tuple[str, str], list[str]]
    status = 200

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name, version = asked["package"]["name"], asked["version"]
        affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": []}]
        names = self.published.get((name, version), [])
        found = [{"id": one, "summary": "said", "affected": affected} for one in names]
        body = json.dumps({"vulns": found} if found else {}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def service() -> Iterator[tuple[str, type[Advisories]]]:
    """Its address, and what it has published."""
    handler = type("Handler", (Advisories,), {"published": {("jinja2", "2.10"): ["PYSEC-2019-217"]}})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query", handler
        finally:
            server.shutdown()
            thread.join()


def audit(monkeypatch: pytest.MonkeyPatch, service: str) -> int | str | None:
    """Runs the script in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["audit", "--osv-url", service])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / "audit"), run_name="__main__")
    return ended.value.code


def test_a_published_vulnerability_of_the_image_is_named_and_fails(
    service: tuple[str, type[Advisories]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, handler = service
    assert audit(monkeypatch, url) == 0
    assert "vulnerabilities: 0 of" in capsys.readouterr().out
    name, version = next(pin.split("==") for pin in advisories.image() if pin.startswith("urllib3"))
    handler.published[name, version] = ["PYSEC-2027-1", "GHSA-x"]
    assert audit(monkeypatch, url) == 1
    assert f"{name} {version}: PYSEC-2027-1, GHSA-x" in capsys.readouterr().out


def test_a_service_that_is_away_or_knows_nothing_is_no_clean_bill(
    service: tuple[str, type[Advisories]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, handler = service
    handler.published.clear()
    assert audit(monkeypatch, url) == 0
    handler.status = 404
    assert audit(monkeypatch, url) == 0
    assert audit(monkeypatch, "http://127.0.0.1:1/v1/query") == 0
    assert capsys.readouterr().out.count("skipped: the advisory service cannot be reached") == 3
