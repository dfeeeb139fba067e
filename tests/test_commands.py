"""Commands of the README, run as a user runs them, on a tiny model."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from snb.philosophers import persona
from snb.prompt import ChatML
from snb.request import Request
from snb.settings import ROOT
from tests.tiny import save_tiny, tiny_tokenizer
from tests.waiting import started_with, until
from tools.serving.server import free_port

pytestmark = pytest.mark.server


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "SNB_BASE_MODEL": str(save_tiny(tmp_path / "base")), "SNB_ADAPTER": "none"}


def predict(environment: dict[str, str], folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "predict"), *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_predict_streams_an_answer_and_prints_its_metrics(  # a server boots
    environment: dict[str, str], tmp_path: Path
) -> None:
    question, course = "La liberté est-elle une illusion ?", "La substance.\n\nLes modes."
    history = [{"role": "assistant", "content": "Bonjour."}]
    (tmp_path / "cours.md").write_text(course, encoding="utf-8")
    (tmp_path / "history.json").write_text(json.dumps(history), encoding="utf-8")
    options = ["--philosopher", "kant", "--rag-context", "cours.md", "--history", "history.json"]
    options += ["--max-tokens", "12", "--min-tokens", "12", "--seed", "0"]
    options += ["--stop-sequences", "Élève :", "\n\n\n"]
    done = predict(environment, tmp_path, question, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stdout.endswith("\n")
    metrics = json.loads(done.stderr[done.stderr.index("{") :])
    request = Request.checked(user_message=question, rag_context=course, history=history)
    prompt = ChatML(tiny_tokenizer().backend_tokenizer).prompt(persona("kant"), request, 4000)
    asked = (metrics["input_token_count"], metrics["output_token_count"], metrics["seed"])
    assert asked == (len(prompt.ids), 12, 0)


def test_serve_says_when_it_is_ready_and_its_server_ends_with_it(  # a server boots
    environment: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    command = [sys.executable, str(ROOT / "scripts" / "serve"), "--port", str(port)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as serve:
        assert serve.stdout
        assert serve.stdout.readline() == f"Ready: http://127.0.0.1:{port}\n"
        assert serve.stdout.readline() == f"Serving {environment['SNB_BASE_MODEL']} with adapter none\n"
        assert httpx.get(f"http://127.0.0.1:{port}/health-check").json()["status"] == "READY"
        assert len(started_with(tmp_path)) >= 3  # itself, the server and its worker
        serve.send_signal(signal.SIGKILL)
        until(lambda: not started_with(tmp_path))
