"""scripts/drill: a real drill with a killed backend, one by hand, and what counts as a failure."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import pytest

from snb.settings import ROOT
from tests import scripts
from tests.cog_double import Double
from tests.tiny import save_tiny
from tests.waiting import started_with, until
from tools.endpoints.endpoint import Failed
from tools.rehearsing import drill
from tools.rehearsing.course import Answer, Course
from tools.serving import local

needs_node = pytest.mark.skipif(
    not shutil.which("node") or not (ROOT / "client" / "node_modules").exists(),
    reason="the client is not installed: run npm ci --prefix client",
)


# A Space and a server boot.
@needs_node
@pytest.mark.server
def test_a_class_loses_nothing_when_the_first_backend_is_killed(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", max_position_embeddings=4096)
    own = {"SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none", "SNB_SCRIPTS": "any"}
    # Variables that the plan may have left in a shell.
    plan = {"SNB_BACKEND_URL": "usual.invalid,replicate:owner/name", "SNB_API_PREFIX": "/gradio_api"}
    plan |= {"SNB_API_KEY": "another-key-0123456789", "http_proxy": "http://127.0.0.1:9"}  # like a school's
    environment = {**os.environ, **own, **plan}
    file = tmp_path / "records" / "drill.md"
    command = [sys.executable, str(ROOT / "scripts" / "drill"), "--pupils", "2", "--output", str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SNB_API_PREFIX" not in done.stderr
    assert file.read_text(encoding="utf-8") == done.stdout
    assert "**Nothing was lost:**" in done.stdout
    scene = "a Gradio Space of the old kind and python -m snb.front with a key; the first was killed"
    assert scene in done.stdout
    asked, first, second = map(int, re.findall(r"(?:- |: |backend, )(\d+) (?:q|a|b)", done.stdout))
    assert asked == first + second
    assert min(first, second) >= 2
    until(lambda: not started_with(tmp_path))


def test_its_own_servers_take_the_stand_in_where_the_14b_would_fit_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, answers in (("has_gpu", True), ("present", True), ("build_standin", None)):
        monkeypatch.setattr(local, name, lambda *_, answers=answers: answers)
    monkeypatch.delenv("SNB_BASE_MODEL", raising=False)

    def start(settings: dict[str, str], **_: Any) -> NoReturn:
        raise Failed(settings["SNB_BASE_MODEL"])

    monkeypatch.setattr(drill, "Server", start)
    served = pytest.raises(Failed, match=str(local.STANDIN / "base"))
    with served, ExitStack() as stack, (tmp_path / "log").open("w") as log:
        drill.here(stack, log)


@needs_node
@pytest.mark.slow  # Node starts, and pupils pause between questions
def test_a_person_is_told_when_to_take_the_first_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Double() as second, Double() as first:

        def take(line: str) -> None:
            if "Take the first backend away now" in line:
                first.__exit__()

        monkeypatch.setattr(drill, "say", take)
        assert scripts.code("drill", "--pupils", "2", "--backends", first.url, second.url) == 0
    assert "the first was taken away by hand" in capsys.readouterr().out


def test_without_node_the_drill_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Failed, match="needs Node 18 or later"):
        scripts.code("drill")


def answer(pupil: int, asked: float, ended: float, backend: int | None) -> Answer:
    return Answer(pupil, asked, ended, "TIMEOUT: no text" if backend is None else "", backend)


def test_the_record_says_who_answered_and_how_long_it_took() -> None:
    course = Course([answer(0, 1, 3, 0), answer(1, 9, 12, 1), answer(1, 13, 15, 1)], taken=10)
    course.answers.append(answer(0, 4, 40, 0))
    assert not course.is_over(pupils=2)  # one has not asked again since the switch
    course.answers.append(answer(0, 41, 42, 1))
    assert course.is_over(pupils=2)
    assert course.faults() == []
    assert "5 questions: 2 answered by the first backend, 3 by the second" in course.summary()
    assert re.findall(r": ([\d.]+) s", course.summary()) == ["2.0", "36.0"]


def test_what_was_lost_or_never_happened_is_a_fault() -> None:
    course = Course([answer(0, 11, 12, None)], taken=10)
    lost, *never = course.faults()
    assert lost == "1 questions were lost: TIMEOUT: no text"
    assert len(never) == 2
    assert "**Failed:** 1 questions were lost" in course.summary()
