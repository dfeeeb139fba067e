"""scripts/benchmark: figures on known numbers; callers against servers that answer and that fail."""

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from snb.philosophers import persona
from snb.settings import ROOT
from tests.tiny import save_tiny
from tools.benchmarking import benchmark_table, load_benchmark, random_weights, session, workload
from tools.benchmarking.classroom import Answer, Run, gather
from tools.benchmarking.figures import between, figures, median
from tools.command import Fault
from tools.endpoints import dialect
from tools.endpoints.cog_endpoint import Cog
from tools.endpoints.endpoint import Failed, Piece
from tools.endpoints.openai_endpoint import ChatCompletions
from tools.serving.server import Server

INPUTS = workload.inputs("chat", 0)
SCHEMA: dict[str, Any] = {
    "components": {"schemas": {"Input": {"properties": {"user_message": {}, "max_tokens": {}}}}}
}
Reply = tuple[int, str, str]
"""Status, content type, content."""


class Handler(BaseHTTPRequestHandler):
    """Gives each reply of its server once, and the last one from then on; keeps what it was asked."""

    server: "Table"

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0)))))
        replies = self.server.replies
        self.reply(*(replies.pop(0) if len(replies) > 1 else replies[0]))

    def do_GET(self) -> None:
        self.reply(*as_json(SCHEMA))

    def reply(self, status: int, kind: str, content: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Retry-After", "1" if status == 429 else "")
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_: object) -> None:
        """Nothing: the test says what was wrong."""


class Table(ThreadingHTTPServer):
    replies: list[Reply]
    asked: list[dict[str, Any]]


@contextlib.contextmanager
def table(*replies: Reply) -> Iterator[tuple[str, Table]]:
    """A server on loopback whose replies are written down."""
    with Table(("127.0.0.1", 0), Handler) as server:
        server.replies, server.asked = list(replies), []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", server
        server.shutdown()


def as_json(value: Any, status: int = 200) -> Reply:
    return status, "application/json", json.dumps(value)


def as_events(*events: str) -> Reply:
    return 200, "text/event-stream", "".join(f"{event}\n\n" for event in events)


BON = 'event: output\ndata: {"chunk": "Bon", "index": 0}'
METRICS = {"error": "it broke", "metrics": {"output_token_count": 64}}


def cog_answer(status: str = "succeeded") -> Reply:
    return as_events(BON, BON, f"event: completed\ndata: {json.dumps({'status': status, **METRICS})}")


def benchmark(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command, variables = (
        [sys.executable, str(ROOT / "scripts" / "benchmark"), *arguments],
        {**os.environ, **environment},
    )
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)


def answer(*times: float, asked: float = 0.0, tokens: int = 4, failure: str = "", **more: Any) -> Answer:
    ended = times[-1] if times else 9.0
    return Answer(asked, ended, tokens, list(times), [None] * len(times), failure=failure, **more)


# Figures


def test_figures_are_those_computed_by_hand() -> None:
    shown = figures([answer(1, 2, 3, 4), answer(3, 4, 5, 8, asked=1)], price=0.5)
    assert (shown.ttft_p50, shown.ttft_p95, shown.last_first_text) == (1, 2, 3)
    assert (shown.between_p50, shown.between_p95) == (1, 3)
    assert shown.tokens_per_second == 8 / 8
    assert shown.request_tokens_per_second == 4 / 7  # of 4 / 4 and 4 / 7
    assert shown.after_first_tokens_per_second == 3 / 5  # of 3 / 3 and 3 / 5
    assert (shown.cost, shown.failures) == (0.5 * 8 / 2, 0)


def test_a_failed_request_stays_in_the_percentiles_as_one_that_never_answers() -> None:
    shown = figures([answer(1, 2), answer(failure="HTTP 500")], price=1)
    assert (shown.ttft_p50, shown.ttft_p95, shown.last_first_text) == (1, math.inf, math.inf)
    assert (shown.failures, shown.request_tokens_per_second) == (1, 0)
    assert shown.tokens_per_second == 4 / 9  # the failure took nine seconds of the server
    assert shown.cost == 9
    nobody = figures([answer(failure="HTTP 500")], price=1)
    assert (nobody.tokens_per_second, nobody.cost) == (0, math.inf)


def test_tokens_are_the_servers_count_where_it_gives_one() -> None:
    told = Answer(0, 3, 4, times=[1.0, 2.0, 3.0], counts=[1, 3, 4], reported=4)
    assert list(between(told)) == [0.5, 0.5, 1.0]
    assert list(between(answer(1, 2, tokens=4))) == [0.5]  # two pieces of two tokens each
    assert figures([answer(1, 2, reported=3)]).tokens_per_second == 3 / 2
    rounds = [Run("ours", "chat", "at once", 1, [answer(1, 2, reported=3)])]
    assert "ours: 1 answers are not as long as asked for." in benchmark_table.write(rounds, {}, 0)


def test_medians_are_over_rounds_and_ratios_of_ours_over_theirs() -> None:
    def run(server: str, *seconds: float) -> list[Run]:
        return [Run(server, "chat", "at once", 1, [answer(end / 2, end)]) for end in seconds]

    assert median(run("ours", 2, 8, 4)).tokens_per_second == 1
    text = benchmark_table.write([*run("ours", 2, 8, 4), *run("theirs", 8)], {"ours": 7.5}, 0)
    [row] = [line for line in text.splitlines() if line.startswith("| theirs") and line.count("|") == 5]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == ["theirs", "chat, 1 at once", "2.00", "0.50"]
    assert "7.50" in text


# What is asked


def test_passages_are_as_long_as_the_callers_and_never_the_same_three() -> None:
    texts = workload.TEXTS["passages"]
    assert all(1800 <= len("\n\n".join(three)) <= 2600 for three in permutations(texts, 3))
    assert all(len(text) <= 800 for text in texts)
    assert len({workload.passages(number) for number in range(336)}) == 336


def test_a_model_is_asked_in_its_own_words() -> None:
    rag = workload.inputs("rag", 0)
    known = {"user_message", "rag_context", "philosopher", "max_tokens", "min_tokens"}
    assert dialect.adapt(rag, known) == {key: rag[key] for key in known}
    reference = dialect.adapt(rag, {"user_message", "max_tokens"})
    assert set(reference) == {"user_message", "max_tokens"}
    assert "> **" in reference["user_message"]
    assert reference["user_message"].endswith(rag["user_message"])
    llama = dialect.adapt(INPUTS, {"prompt", "system_prompt", "max_new_tokens", "top_k"})
    assert llama["system_prompt"] == persona("spinoza")
    assert (llama["prompt"], llama["max_new_tokens"]) == (INPUTS["user_message"], 64)
    assert dialect.adapt(INPUTS, {"prompt"}) == {
        "prompt": f"{persona('spinoza')}\n\n{INPUTS['user_message']}"
    }
    with pytest.raises(Failed, match="prompt"):
        dialect.adapt(INPUTS, {"image"})


# Callers


def test_a_full_server_is_asked_again_and_the_wait_counts() -> None:
    full = [as_json({"detail": "full"}, status) for status in (429, 409, 503)]
    with table(*full, cog_answer()) as (url, server):
        [heard] = gather(Cog("cog", url), [INPUTS])
    assert (heard.failure, heard.reported, len(heard.times)) == ("", 64, 2)
    assert heard.times[0] >= 1  # as the 429 wanted
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (as_json({"detail": "no"}, 500), "HTTP 500"),
        (cog_answer("failed"), "it broke"),
        (as_events(BON), "ended before"),
        (as_json({"output": "not a stream"}), "text/event-stream"),
        (as_events("event: output\ndata: nonsense"), "JSONDecodeError"),
        (as_events('event: completed\ndata: {"status": "succeeded"}'), "no text"),
    ],
)
def test_a_request_that_fails_says_why(broken: Reply, reason: str) -> None:
    with table(broken) as (url, _):
        [heard] = gather(Cog("cog", url), [INPUTS])
    assert reason in heard.failure


def chunk(text: str, tokens: int | None = None, reason: str | None = None) -> str:
    usage = None if tokens is None else {"completion_tokens": tokens}
    choice = {"delta": {"content": text}, "finish_reason": reason}
    return f"data: {json.dumps({'choices': [choice], 'usage': usage})}"


def test_chat_completions_are_read_with_and_without_a_last_word() -> None:
    vllm = as_events(chunk("Bon", 1), chunk("jour", 3, "length"), "data: [DONE]")
    transformers = as_events(chunk("Bonjour"), chunk("", 3, "length"))
    with table(vllm, transformers) as (url, server):
        endpoint = ChatCompletions("peer", url, "model", {"top_k": 20})
        assert list(endpoint.ask(INPUTS)) == [Piece("Bon", 1), Piece("jour", 3)]
        assert list(endpoint.ask(INPUTS)) == [Piece("Bonjour"), Piece("", 3)]
    body = server.asked[0]
    assert body["messages"][0] == {"role": "system", "content": persona("spinoza")}
    assert (body["max_tokens"], body["top_k"], body["stream"]) == (64, 20, True)


@pytest.mark.parametrize("broken", [as_events(chunk("Bon")), as_events('data: {"error": "out of memory"}')])
def test_a_chat_completion_that_breaks_off_has_failed(broken: Reply) -> None:
    with (
        table(broken) as (url, _),
        pytest.raises(Failed, match=r"ended before|out of memory"),
    ):
        list(ChatCompletions("peer", url, "model", {}).ask(INPUTS))


# The tool


@pytest.mark.server
def test_the_tool_measures_a_cog_server_and_keeps_what_it_saw(tmp_path: Path) -> None:
    settings = {"SNB_BASE_MODEL": str(save_tiny(tmp_path / "base")), "SNB_ADAPTER": "none"}
    with (tmp_path / "log").open("w") as log, Server(settings, log=log) as server:
        server.wait()
        options = ["--concurrency", "1", "2", "--rounds", "1", "--class", "3", "--cold", "--price", "0.001"]
        done = benchmark(server.url, *options, "--output", str(tmp_path), "--workload", "chat", "rag")
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))
    asked = [(run["workload"], run["kind"], run["pupils"]) for run in kept["runs"]]
    kinds = [("at once", 1), ("at once", 2), ("class", 3), ("warm", 1), ("cold", 1)]
    assert asked == [(name, *kind) for name in ("chat", "rag") for kind in kinds]
    answers = [one for run in kept["runs"] for one in run["answers"]]
    assert all(one["reported"] == one["wanted"] and not one["failure"] for one in answers)
    assert all(shown["tokens_per_second"] > 0 and shown["cost"] > 0 for shown in kept["figures"])
    assert {"date", "machine", "versions"} <= set(kept)
    assert (tmp_path / "benchmark.md").read_text(encoding="utf-8") == done.stdout


def test_the_tool_reports_a_request_that_fails_and_ends_with_1(tmp_path: Path) -> None:
    with table(cog_answer(), cog_answer(), as_json({"detail": "no"}, 500)) as (url, _):
        done = benchmark(url, "--concurrency", "2", "--rounds", "1", "--output", str(tmp_path))
    assert done.returncode == 1
    assert "1 failed: HTTP 500" in done.stderr
    [shown] = json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))["figures"]
    assert (shown["failures"], shown["ttft_p95"]) == (1, None)


@pytest.mark.server
def test_overhead_is_measured_whatever_is_prepared_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prepared").mkdir()
    monkeypatch.setenv("SNB_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.delenv("SNB_PREPARED")
    monkeypatch.setattr(session, "OVERHEAD", {"max_tokens": 8, "min_tokens": 8})
    measured = session.Session(session.Plan([], [], rounds=1), keep=lambda _: None)
    with (tmp_path / "log").open("w") as log:
        measured.overhead(log)
    assert not measured.failed, measured.faults
    asked = [(run.server, run.workload, run.answers[0].wanted) for run in measured.runs]
    assert asked == [("ours", "overhead", 8), ("generate", "overhead", 8)]


def test_a_load_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    random_weights.make(tmp_path, random_weights.configuration(random_weights.SMALL))
    load = load_benchmark.measure("ours", tmp_path / "base", tmp_path / "adapter", "bf16")
    assert load["read"] == sum(file.stat().st_size for file in tmp_path.glob("*/*.safetensors"))
    assert 0 < load["tensor"] / 4 < load["model"] < load["read"]
    with pytest.raises(Fault, match="ours failed in bf16"):
        load_benchmark.measure("ours", tmp_path / "base", tmp_path / "nothing", "bf16")
