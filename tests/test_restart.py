"""The front in a container that is restarted: whoever is killed, all end, and the next start serves."""

from pathlib import Path

import httpx
import psutil
import pytest

from tests.hosts import KEY, cog_processes, puppet, puppet_server
from tools.serving.server import free_port

QUESTION = {"input": {"user_message": "a", "max_tokens": 1}}


@pytest.mark.server
def test_whichever_process_is_killed_all_end_and_a_restart_answers(tmp_path: Path) -> None:
    """Three boots. What the front leaves behind would hold the card's memory."""
    folder, port = puppet(tmp_path / "project", "set-up"), free_port()
    for number in range(3):
        with puppet_server(folder, port=port, SNB_API_KEY=KEY) as front:
            front.wait()
            headers = {"Authorization": f"Bearer {KEY}"}
            reply = httpx.post(f"{front.url}/predictions", json=QUESTION, headers=headers, timeout=600)
            assert reply.json()["output"] == ["0 "]
            processes = [psutil.Process(front.pid), *cog_processes(front)]
            processes[number].kill()
            assert not psutil.wait_procs(processes, timeout=120)[1]
