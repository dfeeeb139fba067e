"""What docs/SECURITY.md promises of packages and code, checked in the files themselves."""

import ast
import json
import re
import runpy
import sys
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from snb.settings import ROOT
from tools.machine import pins
from tools.supplying import advisories, pin_packages

PIN = re.compile(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[0-9][A-Za-z0-9.]*")
SHIPPED = [ROOT / "predict.py", *sorted((ROOT / "snb").rglob("*.py"))]
SCRIPTS = [ROOT / "scripts" / "environment.py", *sorted((ROOT / "tools").rglob("*.py"))]


def test_every_package_is_pinned_and_every_one_that_was_chosen_has_its_reason() -> None:
    for file in [ROOT / "requirements.txt", *ROOT.glob("scripts/*.txt")]:
        assert not [pin for pin in pins(file) if not PIN.fullmatch(pin)], file.name
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    for pin in sum(project["optional-dependencies"].values(), project["dependencies"]):
        assert re.search(rf'"{re.escape(pin)}",\s*# \S', text), f"{pin} has no reason"


def test_the_files_of_pins_are_those_of_pyproject() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, extras in pin_packages.FILES.items():
        wanted = sum((groups["optional-dependencies"][extra] for extra in extras), groups["dependencies"])
        chosen = {normal(pin) for pin in wanted if "==" in pin}
        assert chosen <= {*map(normal, pins(ROOT / name))}, f"run scripts/pin-packages: {name}"


def normal(pin: str) -> str:
    """With the one spelling of a package's name."""
    name, _, version = pin.partition("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def test_the_image_is_built_from_named_versions() -> None:
    build = yaml.safe_load((ROOT / "cog.yaml").read_text(encoding="utf-8"))["build"]
    assert f"cog=={build['sdk_version']}" in pins(ROOT / "requirements.txt")
    assert f"--python-version={build['python_version']}" in pin_packages.TARGET
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
