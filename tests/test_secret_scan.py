"""Secrets are found by file and line, whatever they lie in, and what is found never says what they are."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from snb.weights.hub import Hub
from tools.publishing import secret_scan
from tools.publishing.project import Project
from tools.publishing.secret_scan import Reading, check

NOWHERE = Hub(endpoint="http://127.0.0.1:1", sleep=lambda _: None)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
BODY = st.text(LETTERS, min_size=20, max_size=40)
TOKENS = st.one_of(BODY.map(lambda body: f"hf_{body}"), BODY.map(lambda body: f"r8_{body}"))
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), max_size=30)
KEY = "-----BEGIN RSA " + "PRIVATE KEY-----"
GITHUB = "ghp_" + "a1B2c3D4" * 4 + "e5F6"


def found(folder: Path, name: str, text: str | bytes, **own: str) -> list[str]:
    """What is said of one file."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [finding.found for finding in Reading(own).file(name, path)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@limits(max_examples=60, deadline=None)
@given(before=st.lists(TEXT, max_size=5), left=TEXT, right=TEXT, token=TOKENS)
def test_a_token_is_found_in_its_line_and_never_shown(
    folder: Path, before: list[str], left: str, right: str, token: str
) -> None:
    said = found(folder, "notes.txt", "\n".join([*before, f"{left} {token} {right}"]))
    assert any(one.startswith(f"notes.txt, line {len(before) + 1}: ") for one in said)
    assert token not in " ".join(said)
    assert token[3:] not in " ".join(said)


@limits(max_examples=40, deadline=None)
@given(lines=st.lists(TEXT, max_size=4), token=TOKENS, indent=st.sampled_from([None, 1, 2]))
def test_a_token_in_a_notebook_is_found_however_it_is_written(
    folder: Path, lines: list[str], token: str, indent: int | None
) -> None:
    cells = [{"cell_type": "code", "source": [f"{line}\n" for line in [*lines, f'login("{token}")']]}]
    text = json.dumps({"cells": cells, "nbformat": 4}, indent=indent)
    said = found(folder, "essai.ipynb", text)
    [line] = [number for number, part in enumerate(text.split("\n"), 1) if token in part]
    assert any(one.startswith(f"essai.ipynb, line {line}: ") for one in said)
    assert token not in " ".join(said)


@limits(max_examples=40, deadline=None)
@given(value=st.text(LETTERS + "+/=-.", min_size=8, max_size=40), left=TEXT)
def test_the_value_of_a_variable_is_found_in_whatever_form_it_has(
    folder: Path, value: str, left: str
) -> None:
    said = found(folder, "a.py", f"{left}\n{left}{value}", SNB_API_KEY=value)
    assert any("line 2: the value of this shell's SNB_API_KEY" in one for one in said)


@pytest.mark.parametrize(
    "line",
    [
        KEY,
        f"token: {GITHUB}",
        "print('sk-" + "proj-a1B2c3D4e5F6g7H8')",
        "key = AKIAIOSFODNN7EXAMPLE1",
        'password = "correct-horse-battery"',
        "git clone https://user:passw0rd@host.example/x",
    ],
)
def test_other_kinds_are_found_too_in_a_text_and_in_a_notebook(folder: Path, line: str) -> None:
    assert len(found(folder, "a.py", f"x = 1\n{line}\n")) == 1
    notebook = json.dumps({"cells": [{"source": [f"{line}\n"]}]}, indent=1)
    assert len(found(folder, "a.ipynb", notebook)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "from huggingface_hub import hf_hub_download, hf_transfer",
        'token = os.environ["HF_TOKEN"]',
        "revision: cf98f3b3bbb457ad9e2bb7baf9a0125b6b88caa8",
        "hf_token: str | None = _setting(None, 'HF_TOKEN', _text, secret=True)",
    ],
)
def test_what_only_speaks_of_secrets_is_none(folder: Path, line: str) -> None:
    assert found(folder, "a.py", line) == []


def test_a_binary_is_not_read_and_neither_is_what_is_too_large(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "hf_" + LETTERS[:30]
    assert found(folder, "a.bin", b"\0" + token.encode()) == []
    assert len(found(folder, "a.txt", token)) == 1
    monkeypatch.setattr(secret_scan, "LARGEST", 10)
    assert found(folder, "a.txt", token) == []


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        (".env", True),
        ("deep/.env.local", True),
        ("deep/.env.example", False),
        ("key.pem", True),
        ("home/.ssh/known_hosts", True),
        (".docker/config.json", True),
        ("config.json", False),
        (".git/config", True),
        ("environment.yml", False),
        ("monkey.py", False),
    ],
)
def test_files_are_known_by_their_names(tmp_path: Path, name: str, secret: bool) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("nothing\n")
    codes = [finding.code for finding in check(project(tmp_path))]
    assert codes == (["SECRET_FILE"] if secret else ["SECRETS"])


@pytest.mark.parametrize(
    ("entry", "secret"),
    [("HF_TOKEN=x", True), ("DB_PASSWORD=x", True), ("SNB_SLOTS=4", False), ("HF_TOKEN=", False)],
)
def test_a_variable_of_cog_yaml_is_secret_by_its_name(tmp_path: Path, entry: str, secret: bool) -> None:
    (tmp_path / "cog.yaml").write_text(f"build:\n  gpu: true\nenvironment:\n  - {entry}\n")
    assert [f.code for f in check(project(tmp_path))] == (["SECRET_IN_CONFIG"] if secret else ["SECRETS"])


def test_much_text_is_skimmed_and_said_so(tmp_path: Path) -> None:
    line = "Nous ne désirons pas une chose parce qu’elle est bonne, mais elle est bonne parce que.\n"
    token = "hf_" + LETTERS[:30]
    (tmp_path / "corpus.txt").write_text(line * 20_000 + f"{token}\n")
    findings = list(check(project(tmp_path)))
    assert [finding.code for finding in findings] == ["SECRET_IN_FILE", "SECRETS_SKIMMED"]
    assert "line 20001" in findings[0].found
    assert "corpus.txt" in findings[1].found


def test_a_file_that_cannot_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    missing = tmp_path / "gone.txt"
    assert [finding.level for finding in Reading({}).file("gone.txt", missing)] == ["not checked"]


def project(root: Path) -> Project:
    return Project(root, {"HOME": str(root)}, None, None, 1.0, hub=NOWHERE)
