"""The commands of the README, run as a user runs them, on a tiny model."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from snb.settings import ROOT
from tests.tiny import save_tiny
from tests.waiting import started_with, until
from tools.serving.server import free_port

pytestmark = pytest.mark.server
PREDICT = [sys.executable, str(ROOT / "scripts" / "predict")]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "SNB_BASE_MODEL": str(save_tiny(tmp_path / "base")), "SNB_ADAPTER": "none"}


def test_predict_streams_an_answer_and_prints_its_metrics(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "cours.md").write_text("La substance.\n\nLes modes.", encoding="utf-8")
    (tmp_path / "history.json").write_text('[{"role": "assistant", "content": "Bonjour."}]', encoding="utf-8")
    options = ["--philosopher", "kant", "--rag-context", "cours.md", "--history", "history.json"]
    options += ["--max-tokens", "12", "--min-tokens", "12", "--seed", "0"]
    options += ["--stop-sequences", "Élève :", "\n\n\n"]
    command = [*PREDICT, "La liberté est-elle une illusion ?", *options]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert '"output_token_count": 12' in done.stderr
    assert '"seed": 0' in done.stderr


def test_predict_says_why_there_is_no_answer(environment: dict[str, str]) -> None:
    command = [*PREDICT, "x" * 4001]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert refused.returncode == 1
    assert "user_message" in refused.stderr
    command[-1] = "Bonjour"
    broken = {**environment, "SNB_PRECISION": "int4"}
    failed = subprocess.run(command, env=broken, capture_output=True, text=True, timeout=300)
    assert failed.returncode == 1
    assert "BAD_SETTING" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_serve_says_when_it_is_ready_and_a_signal_ends_it_with_its_worker(
    environment: dict[str, str], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    port = free_port()
    command = [sys.executable, str(ROOT / "scripts" / "serve"), "--port", str(port)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as serve:
        assert serve.stdout
        assert serve.stdout.readline().decode().strip() == f"Ready: http://127.0.0.1:{port}"
        assert (
            serve.stdout.readline().decode() == f"Serving {environment['SNB_BASE_MODEL']} with adapter none\n"
        )
        assert httpx.get(f"http://127.0.0.1:{port}/health-check").json()["status"] == "READY"
        assert len(started_with(tmp_path)) >= 3  # itself, the server and its worker
        serve.send_signal(number)
        assert serve.wait(timeout=120) == code
        until(lambda: not started_with(tmp_path))
