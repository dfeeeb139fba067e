"""What docs/SECURITY.md promises of packages and code, checked in the files themselves."""

import ast
import json
import re
import socket
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

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


def test_the_pins_of_the_image_are_the_versions_that_are_tested() -> None:
    """All but torch, whose build for the CPU is another release."""
    pinned = [pin.split("==") for pin in pins(ROOT / "requirements.txt") if not pin.startswith("torch==")]
    assert pinned == [[name, metadata.version(name)] for name, _ in pinned]


def normal(pin: str) -> str:
    name, _, version = pin.partition("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def test_the_image_is_built_from_named_versions() -> None:
    build = yaml.safe_load((ROOT / "cog.yaml").read_text(encoding="utf-8"))["build"]
    assert f"cog=={build['sdk_version']}" in pins(ROOT / "requirements.txt")
    assert f"--python-version={build['python_version']}" in pin_packages.TARGET
    assert build["cuda"]


def test_what_is_said_of_cog_s_faults_is_of_the_version_that_is_pinned() -> None:
    """With another version, each of them is to be looked for again."""
    text = (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")
    assert f"cures** ({metadata.version('cog')})" in text


def test_every_test_that_is_named_beside_a_promise_exists() -> None:
    text = (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")
    files = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("test_*.py"))
    tests = re.findall(r"^def (test_\w+)", files, re.MULTILINE)
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


def ranged(*events: str) -> dict[str, Any]:
    """A range in OSV's form, of events such as "fixed 1.10"."""
    return {"ranges": [{"type": "ECOSYSTEM", "events": [dict([event.split()]) for event in events]}]}


def advisory(name: str, affected: dict[str, Any], ecosystem: str = "PyPI", **more: Any) -> dict[str, Any]:
    known = {"id": "PYSEC-2027-1", "modified": "2026-11-20T10:00:00Z", "summary": "of a test"}
    package = {"name": name, "ecosystem": ecosystem}
    return {**known, "affected": [{"package": package, **affected}], **more}


def export(file: Path, *advisories: dict[str, Any]) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for number, one in enumerate(advisories):
            archive.writestr(f"{number}.json", json.dumps(one))
    return file


AFFECTED: list[tuple[dict[str, Any], str, str]] = [
    (ranged("introduced 0"), "0.1a1 1 2!0", ""),
    (ranged("introduced 0", "fixed 1.10"), "1.9 1.10rc1", "1.10 1.10.0 1.11"),
    (ranged("introduced 1.9", "last_affected 1.10"), "1.9 1.10", "1.8 1.9rc1 1.10.post1 2"),
    (ranged("introduced 2", "fixed 2.1", "introduced 0", "fixed 1.10"), "1.9 2 2.0.5", "1.10 1.99 2.1"),
    (ranged("introduced 0", "fixed 2", "introduced 2", "fixed 3"), "1 2 2.5", "3"),
    (ranged("introduced 0", "limit 2", "limit *"), "1", "2"),
    (ranged("introduced 1", "fixed before-pep-440"), "1", "0.9"),
    ({"versions": ["1.9", "before-pep-440"], **ranged("introduced 3")}, "1.9 1.9.0 3", "1.8 2"),
    ({"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, "", "1"),
]


@pytest.mark.parametrize(("affected", "yes", "no"), AFFECTED, ids=[str(row[0])[:60] for row in AFFECTED])
def test_an_advisory_is_about_the_versions_that_osv_s_schema_says(
    affected: dict[str, Any], yes: str, no: str
) -> None:
    asked = f"{yes} {no}".split()
    assert [version for version in asked if audit.affects(affected, Version(version))] == yes.split()


def test_what_is_withdrawn_or_of_another_ecosystem_is_no_finding() -> None:
    every, releases = ranged("introduced 0"), {"py-yaml": "2.0"}
    withdrawn = advisory("Py_YAML", every, withdrawn="2026-11-21T10:00:00Z")
    assert not [*audit.about([withdrawn, advisory("Py_YAML", every, "npm")], releases)]
    assert [*audit.about([advisory("Py_YAML", every)], releases)]


EVERYBODY_KNOWS = advisory("jinja2", ranged("introduced 0", "fixed 2.10.1"))


def test_a_known_vulnerability_fails_and_a_clean_bill_says_how_old_the_database_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    database = export(tmp_path / "all.zip", EVERYBODY_KNOWS)
    monkeypatch.setattr(audit, "EXPORT", database.as_uri())
    for brought in (database, None):
        assert audit.report(brought) == 0
        clean = r"0 of \d+ packages have a known .*, the newest of 2026-11-20\.\n"
        assert re.fullmatch(clean, capsys.readouterr().out)
    for name in ("urllib3", "gradio"):  # of the image, of the page
        more: dict[str, Any] = {"aliases": ["CVE-2027-1"], "summary": "\x1b[2Jof\na test"}
        entry = advisory(name, ranged("introduced 0", "fixed 99"), **more)
        assert audit.report(export(database, EVERYBODY_KNOWS, entry)) == 1
        wanted = rf"{name} [\d.]+: PYSEC-2027-1, CVE-2027-1: \[2Jof a test https://\S+\n1 of .*\n"
        assert re.fullmatch(wanted, capsys.readouterr().out)


def test_no_answer_and_one_that_cannot_be_believed_are_no_clean_bill(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    portal = tmp_path / "portal.zip"
    portal.write_text("<html>Bienvenue sur le réseau</html>", encoding="utf-8")
    ignorant = export(tmp_path / "ignorant.zip", advisory("jinja2", ranged("introduced 3")))
    others = [
        {"name": "no advisory"},
        {"id": "undated"},
        advisory("urllib3", ranged("introduced 0"), id=None),
    ]
    others += [{"affected": [{"package": None}]}]
    strange = [export(tmp_path / f"{n}.zip", EVERYBODY_KNOWS, one) for n, one in enumerate(others)]
    monkeypatch.setattr(audit, "EXPORT", "http://127.0.0.1:1/all.zip")
    for database in (None, portal, ignorant, *strange, tmp_path / "absent.zip"):
        assert audit.report(database) == audit.NOT_AUDITED
        assert re.fullmatch(r"NOT AUDITED: .*\n", capsys.readouterr().out)
