"""scripts/drill: the real thing with a killed backend, a person's hands, and what counts as a failure."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from snb.settings import ROOT
from tests.cog_double import Double
from tests.tiny import save_tiny
from tests.waiting import started_with
from tools.rehearsing.course import Answer, Course
from tools.serving.server import free_port

pytestmark = pytest.mark.slow  # every test rehearses a switch with Node and two servers

DRILL = [sys.executable, str(ROOT / "scripts" / "drill"), "--pupils", "2"]
"""Two: the client leaves a backend alone the longer the more questions it took with it."""
needs_node = pytest.mark.skipif(
    not shutil.which("node") or not (ROOT / "client" / "node_modules").exists(),
    reason="the client is not installed: run npm ci --prefix client",
)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A tiny model, and what the plan has left in a shell."""
    base = save_tiny(tmp_path / "base", max_position_embeddings=4096)
    own = {"SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none", "SNB_SCRIPTS": "any"}
    plan = {"SNB_BACKEND_URL": "usual.invalid,replicate:owner/name", "SNB_API_PREFIX": "/gradio_api"}
    return {**os.environ, **own, **plan, "SNB_API_KEY": "another-key-0123456789"}


def answered(record: str) -> list[int]:
    """How many questions were asked, and answered by either backend."""
    counts = re.search(r"(\d+) questions asked: (\d+) .* backend, (\d+) by the second", record)
    assert counts, record
    return list(map(int, counts.groups()))


# A Space and a server boot, the Space twice, and the client leaves who failed alone for ten seconds and more.
@needs_node
@pytest.mark.server
def test_a_class_loses_nothing_when_the_first_backend_is_killed_and_returns_to_it(
    environment: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "records" / "drill.md"
    command = [*DRILL, "--output", str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert file.read_text(encoding="utf-8") == done.stdout
    assert "**Nothing was lost:**" in done.stdout
    assert "SIGKILL" in done.stdout
    assert "asked a Gradio Space of the old kind and python -m snb.front with a key" in done.stdout
    asked, first, second = answered(done.stdout)
    assert asked == first + second
    assert min(first, second) >= 2
    assert not started_with(tmp_path)


# A Space and a server boot.
@needs_node
@pytest.mark.server
def test_ctrl_c_ends_everything_that_was_started(environment: dict[str, str], tmp_path: Path) -> None:
    with subprocess.Popen(DRILL, env=environment, stderr=subprocess.PIPE, text=True) as drill:
        assert drill.stderr
        assert any("pupils ask" in line for line in drill.stderr)
        assert len(started_with(tmp_path)) > 6  # itself, a Space, two servers with a worker each, the class
        drill.send_signal(signal.SIGINT)
        assert drill.wait(timeout=60) == 130
        assert "Traceback" not in drill.stderr.read()
    assert not started_with(tmp_path)


# The client leaves one that failed alone for ten seconds and more.
@needs_node
def test_a_person_is_told_when_to_take_the_first_away_and_when_to_bring_it_back() -> None:
    with Double() as second, Double() as first, contextlib.ExitStack() as stack:
        command = [*DRILL, "--backends", first.url, second.url]
        pipe = subprocess.PIPE
        drill = stack.enter_context(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True))
        assert drill.stdout
        assert drill.stderr
        for line in drill.stderr:
            if "Take the first backend away now" in line:
                first.__exit__()
            elif "Bring the first backend back now" in line:
                stack.enter_context(Double(port=first.server_port))
        written = drill.stdout.read()
    assert drill.returncode == 0, written
    assert "by hand" in written
    assert min(answered(written)) > 0


@needs_node
def test_an_empty_key_is_told_before_anybody_asks(environment: dict[str, str]) -> None:
    command = [*DRILL, "--backends", "a.invalid", "b.invalid"]
    environment["SNB_API_KEY"] = ""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "SNB_API_KEY is set and empty" in done.stderr


@needs_node
@pytest.mark.parametrize("position", [0, 1])
def test_a_backend_that_is_down_from_the_start_is_named(position: int) -> None:
    with Double() as up:
        urls = [up.url, up.url]
        urls[position] = f"http://127.0.0.1:{free_port()}"
        done = subprocess.run([*DRILL, "--backends", *urls], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    which = ("first", "second")[position]
    assert f"the {which} backend does not answer before the drill" in done.stderr
    assert (done.stdout, "Traceback" in done.stderr) == ("", False)


def answer(asked: float, ended: float, backend: int | None, text: str = "whole") -> Answer:
    failure = "TIMEOUT: no text" if backend is None else ""
    return Answer(0, asked, ended, text, failure, backend)


def course(*more: Answer) -> Course:
    """A good one: taken away at 10, brought back at 20, ready at 25."""
    usual = [(1, 3, 0), (9, 12, 1), (11, 14, 1), (13, 15, 1), (26, 27, 1), (28, 30, 0)]
    answers = [answer(*one) for one in usual]
    return Course({0: "whole"}, [*answers, *more], taken=10, given=20, ready=25)


def test_the_record_says_who_answered_and_how_long_it_took() -> None:
    written = course().summary()
    assert answered(written) == [6, 2, 4]
    durations = re.findall(r"[:r] ([\d.]+) s", written)
    assert durations == ["2.0", "3.0", "5.0", "5.0"]
    assert course().faults() == []


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (None, ["1 questions were lost: TIMEOUT: no text"]),
        ("who", ["1 answers were cut short"]),
        ("", ["1 answers were cut short"]),
        ("no", ["1 answers were cut short"]),
        ("white", []),  # in 16 bits a near tie may fall the other way
    ],
)
def test_every_kind_of_loss_is_a_fault(text: str | None, faults: list[str]) -> None:
    assert course(answer(11, 12, None if text is None else 1, text or "")).faults() == faults


def test_a_course_that_did_not_get_far_says_what_never_happened() -> None:
    early = Course({0: "whole"}, [answer(1, 3, 0)])
    assert len(early.faults()) == 3
    assert "**Failed:** the first backend was never taken away" in early.summary()


def test_without_node_the_drill_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(DRILL, env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs Node 18 or later" in done.stderr
    assert "Traceback" not in done.stderr
