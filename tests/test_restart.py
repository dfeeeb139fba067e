"""The front under a loop that restarts it as a container's host does: whatever ends it, it comes back."""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from snb.front import process_group
from snb.settings import ROOT
from tests.hosts import KEY, answers, puppet, status_code
from tests.waiting import running, until
from tools.serving import schema
from tools.serving.server import free_port

pytestmark = pytest.mark.server
RESTARTS = 'while :; do "$@"; done'
"""For sh: runs a command as `restart: always` does."""
SMALL_DISK = 'mount --bind . /mnt && mount -t tmpfs -o size=1m none /tmp && cd /mnt && exec "$@"'
"""For sh: runs a command in the same folder with a private /tmp of 1 MB."""


class Container:
    """`python -m snb.front`, restarted whenever it ends."""

    def __init__(self, process: psutil.Process, url: str) -> None:
        self._process, self.url = process, url

    def processes(self) -> list[psutil.Process]:
        """The front, Cog's server and its worker, as far as they are running, oldest first."""
        python = [one for one in self._process.children(recursive=True) if "python" in one.name()]
        return sorted(python, key=lambda one: one.create_time())

    def well(self) -> bool:
        return status_code(f"{self.url}/health-check") == 200


@contextlib.contextmanager
def container(folder: Path, *before: str) -> Iterator[Container]:
    """A Container, ready, on a predictor without a model; `before` is the command that runs the loop."""
    port, project = free_port(), puppet(folder / "project", "set-up")
    schema.write(project)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COG_PREDICT_TYPE_STUB": "predict.py:Predictor",
        "COG_MAX_CONCURRENCY": "2",
        "SNB_API_KEY": KEY,
    }
    command = [*before, "sh", "-c", RESTARTS, "sh", sys.executable, "-m", "snb.front", "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = process_group.start(command, cwd=project, env=environment, stdout=log, stderr=log)
    try:
        started = Container(psutil.Process(process.pid), f"http://127.0.0.1:{port}")
        until(started.well)
        yield started
    finally:
        process_group.end(process)


def test_whichever_process_is_killed_all_end_and_are_started_again(tmp_path: Path) -> None:
    """Four boots. A process that the front left behind would hold the card's memory."""
    with container(tmp_path) as here:
        for number in range(3):
            before = here.processes()
            assert len(before) == 3
            before[number].kill()
            until(functools.partial(gone, before))
            until(here.well)
            answers(here.url)


@pytest.mark.skipif(ROOT.is_relative_to("/tmp"), reason="the small disk would hide the project")
@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0,
    reason="only who may mount can make a small disk",
)
def test_a_full_disk_ends_it_and_it_is_back_when_there_is_room(tmp_path: Path) -> None:
    with container(tmp_path, "unshare", "-m", "sh", "-c", SMALL_DISK, "sh") as here:
        answers(here.url)
        before = here.processes()
        full = Path(f"/proc/{before[0].pid}/root/tmp/full")
        with contextlib.suppress(OSError), full.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        until(lambda: not here.well())
        until(lambda: gone(before))
        assert "No space left on device" in (tmp_path / "log").read_text()
        until(lambda: remove(here))
        until(here.well)
        answers(here.url)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(running(one.pid) for one in processes)


def remove(here: Container) -> bool:
    """Removes the file that fills the private /tmp, through any process that sees it; whether that worked."""
    for process in here.processes():
        with contextlib.suppress(OSError, psutil.Error):
            Path(f"/proc/{process.pid}/root/tmp/full").unlink()
            return True
    return False
