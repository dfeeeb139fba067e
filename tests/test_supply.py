"""What docs/SECURITY.md promises of packages and code, checked in the files themselves."""

import ast
import json
import re
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
from tools.supplying import audit, pin_packages

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


def test_the_image_starts_no_program_but_cog_s_server_and_reads_no_pickle() -> None:
    banned = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "yaml.load"}
    for file in SHIPPED:
        unwanted = {"subprocess", "pickle", "marshal", "shelve", "dill", "joblib", "runpy"}
        assert imported(file) & unwanted == ({"subprocess"} if file.name == "process_group.py" else set())
        for name, words in calls(file):
            assert name not in banned, f"{file.name}: {name}"
            assert not name.startswith(("os.exec", "os.spawn")), f"{file.name}: {name}"
            assert "trust_remote_code" not in words, f"{file.name}: {name}"


def test_no_script_hands_words_to_a_shell_or_runs_code_of_a_repository() -> None:
    for file in SCRIPTS:
        for name, words in calls(file):
            assert name not in ("eval", "exec", "os.system", "os.popen", "yaml.load"), f"{file.name}: {name}"
            assert not {"shell", "trust_remote_code"} & words.keys(), f"{file.name}: {name}"
            if name == "torch.load":
                assert ast.unparse(words["weights_only"]) == "True"


class Advisories(BaseHTTPRequestHandler):
    """A stand-in for OSV's query, with its form of answers."""

    published = frozenset[str]()
    """The pins that it has a vulnerability of."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = asked["package"]["name"]
        affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": []}]
        vulnerabilities = [{"id": "PYSEC-2027-1", "summary": "of a test", "affected": affected}]
        told = f"{name}=={asked['version']}" in self.published
        body = json.dumps({"vulns": vulnerabilities} if told else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


# Runs pip-audit, again and again.
@pytest.mark.slow
def test_a_published_vulnerability_fails_and_a_service_that_cannot_be_believed_is_no_clean_bill(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # pip-audit's cache

    def audited(url: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["audit", "--osv-url", url])
        return audit.main(), capfd.readouterr().out

    with HTTPServer(("127.0.0.1", 0), Advisories) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        knows_nothing = audited(url)
        monkeypatch.setattr(Advisories, "published", frozenset({audit.KNOWN}))
        code, words = audited(url)
        assert (code, "No known vulnerabilities found" in words) == (0, True)
        [pin] = [pin for pin in pins(ROOT / "requirements.txt") if pin.startswith("urllib3==")]
        monkeypatch.setattr(Advisories, "published", frozenset({audit.KNOWN, pin}))
        code, words = audited(url)
        assert (code, "PYSEC-2027-1" in words) == (1, True)
        server.shutdown()
    for code, words in (knows_nothing, audited("http://127.0.0.1:1/")):
        assert code == 0
        assert "skipped: the advisory service cannot be reached" in words
        assert "No known" not in words
