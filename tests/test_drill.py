"""scripts/drill: the real thing with a killed backend, a person's hands, and what counts as a failure."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snb.settings import ROOT
from tests.cog_double import Double
from tests.tiny import save_tiny
from tools.rehearsing.course import Answer, Course
from tools.serving.server import free_port

DRILL = [sys.executable, str(ROOT / "scripts" / "drill")]
needs_node = pytest.mark.skipif(not shutil.which("npm"), reason="needs Node")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A tiny model, and a setting of the client's own, with which a server would not boot."""
    base = save_tiny(tmp_path / "base", max_position_embeddings=4096)
    own = {"SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none", "SNB_TIMEOUT_MS": "1"}
    return {**os.environ, **own, "SNB_SCRIPTS": "any"}


def left_behind(folder: Path) -> list[int]:
    """Processes that were started with a setting that names `folder`, and still run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            named = str(folder).encode() in (process / "environ").read_bytes()
        except OSError:
            continue
        if named and (process / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
            found.append(int(process.name))
    return found


# The real thing


@needs_node
@pytest.mark.server
def test_a_class_loses_nothing_when_the_first_backend_is_killed_and_returns_to_it(
    environment: dict[str, str], tmp_path: Path
) -> None:
    record = tmp_path / "records" / "drill.md"
    # Two pupils: the client leaves a backend alone the longer the more questions it took with it.
    options = ["--pupils", "2", "--questions", "9", "--tokens", "150", "--output", str(record)]
    done = subprocess.run([*DRILL, *options], env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert record.read_text(encoding="utf-8") == done.stdout
    assert "**Nothing was lost:**" in done.stdout
    assert "SIGKILL" in done.stdout
    rows = table(done.stdout)
    before, away, back = rows
    assert before[:2] == [before[0], before[0]]  # all by the first
    assert away[2] > 0
    assert back[1] >= 2
    assert sum(row[3] for row in rows) == 0  # lost
    assert not left_behind(tmp_path)


@needs_node
@pytest.mark.server
def test_ctrl_c_ends_everything_that_was_started(environment: dict[str, str], tmp_path: Path) -> None:
    options = ["--pupils", "2", "--questions", "400", "--tokens", "150"]
    with subprocess.Popen([*DRILL, *options], env=environment, stderr=subprocess.PIPE, text=True) as drill:
        assert drill.stderr
        assert any("pupils ask" in line for line in drill.stderr)
        assert len(left_behind(tmp_path)) > 4  # itself, two servers with a worker each, the class
        drill.send_signal(signal.SIGINT)
        assert drill.wait(timeout=60) == 130
        assert "Traceback" not in drill.stderr.read()
    assert not left_behind(tmp_path)


def table(record: str) -> list[list[int]]:
    """Questions, by the first, by the second, lost: of each row."""
    lines = [line for line in record.splitlines() if line.startswith("|")][2:]
    return [[int(cell) for cell in line.split("|")[2:6]] for line in lines]


# A person's hands


@contextlib.contextmanager
def hands(
    first: Double, second: Double, then: Callable[[], object] = lambda: None
) -> Iterator[subprocess.CompletedProcess[str]]:
    """A drill on two doubles, whose first is taken away and brought back when the drill asks for it.

    Args:
        then: is called when the first is away.
    """
    urls, port = [first.url, second.url], first.server_port
    options = ["--backends", *urls, "--pupils", "2", "--questions", "6", "--timeout", "10"]
    options += ["--away", "5", "--back", "60"]
    said = []
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as standing:
        stack.enter_context(second)
        standing.enter_context(first)
        drill = subprocess.Popen(
            [*DRILL, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        stack.enter_context(drill)
        assert drill.stdout
        assert drill.stderr
        for line in drill.stderr:
            said.append(line)
            if "Take the first backend away now" in line:
                standing.close()
                then()
            elif "Bring the first backend back now" in line:
                stack.enter_context(Double(port=port))
        written = drill.stdout.read()
        yield subprocess.CompletedProcess(options, drill.wait(timeout=60), written, "".join(said))


@needs_node
def test_a_person_is_told_when_to_take_the_first_away_and_when_to_bring_it_back() -> None:
    with hands(Double(), Double()) as seen:
        assert seen.returncode == 0, seen.stdout + seen.stderr
    assert "by hand" in seen.stdout
    before, away, back = table(seen.stdout)
    assert before[1] == before[0] > 0
    assert away[2] > 0
    assert back[1] > 0


@needs_node
def test_answers_that_are_cut_short_are_seen_and_end_with_1() -> None:
    with hands(Double(), Double("short")) as seen:
        assert seen.returncode == 1
    assert re.search(r"\*\*Failed:\*\* \d+ answers were cut short", seen.stdout)


@needs_node
def test_a_second_backend_that_fails_loses_questions_and_ends_with_1() -> None:
    second = Double()
    with hands(Double(), second, lambda: second.faults.add("cut")) as seen:
        assert seen.returncode == 1
    assert re.search(r"\*\*Failed:\*\* \d+ questions were lost: ALL_BACKENDS_FAILED", seen.stdout)


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


# The record


def answer(asked: float, ended: float, backend: int | None, text: str = "whole") -> Answer:
    failure = "TIMEOUT: no text" if backend is None else ""
    return Answer(0, asked, ended, text, failure, backend)


def course(*more: Answer) -> Course:
    """A good one: taken away at 10, brought back at 20, ready at 25."""
    usual = [(1, 3, 0), (9, 12, 1), (11, 14, 1), (13, 15, 1), (26, 27, 1), (28, 30, 0)]
    answers = [answer(*one) for one in usual]
    return Course([*answers, *more], {0: "whole"}, taken=10, given=20, ready=25)


def test_the_record_says_who_waited_for_how_long() -> None:
    written = course().record("two doubles")
    assert table(written) == [[1, 1, 0, 0], [3, 0, 3, 0], [2, 1, 1, 0]]
    waits = [line.split("|")[6:8] for line in written.splitlines() if line.startswith("|")][2:]
    assert [[float(cell) for cell in row] for row in waits] == [[2, 2], [3, 3], [1.5, 2]]
    assert "to the first answer by the second: 2.00 s" in written
    assert "ready again 5.0 s after" in written
    assert "first answer came 5.0 s later" in written
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
    early = Course([answer(1, 3, 0)], {0: "whole"})
    assert [fault.split("backend")[0] for fault in early.faults()] == [
        "the first ",
        "the second ",
        "callers never returned to the first ",
    ]
    assert table(early.record(""))[0] == [1, 1, 0, 0]


# What is needed


def test_without_node_the_drill_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(DRILL, env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs Node 18 or later" in done.stderr
    assert "Traceback" not in done.stderr
