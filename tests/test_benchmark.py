"""scripts/benchmark: figures on known numbers; callers of servers that answer and of servers that fail."""

import contextlib
import json
import math
import time
from itertools import permutations
from pathlib import Path
from typing import Any

import httpx2
import pytest

from snb.philosophers import persona
from tests import scripts
from tests.cog_double import Double, Reply
from tools.benchmarking import benchmark as tool
from tools.benchmarking import workload
from tools.benchmarking.classroom import Answer, Run, gather
from tools.benchmarking.figures import figures, rows
from tools.endpoints.cog_endpoint import Cog
from tools.endpoints.endpoint import Busy, Failed, check
from tools.endpoints.openai_endpoint import ChatCompletions
from tools.endpoints.started import Started
from tools.serving import local
from tools.serving.server import Server

INPUTS = workload.inputs("chat", 0)


def as_json(value: Any, status: int = 200) -> Reply:
    return status, "application/json", json.dumps(value)


def as_events(*events: str) -> Reply:
    return 200, "text/event-stream", "".join(f"{event}\n\n" for event in events)


BON = 'event: output\ndata: {"chunk": "Bon", "index": 0}'


def cog_answer(status: str = "succeeded") -> Reply:
    end = {"status": status, "error": "it broke", "metrics": {"output_token_count": 64}}
    return as_events(BON, BON, f"event: completed\ndata: {json.dumps(end)}")


def answer(*times: float, asked: float = 0.0, reported: int | None = 4, failure: str = "") -> Answer:
    return Answer(asked, times[-1] if times else 9.0, 4, times, reported, failure)


def test_figures_are_those_computed_by_hand() -> None:
    shown = figures([answer(1, 2, 3, 4), answer(3, 4, 5, 8, asked=1)])
    assert shown == {
        "ttft_p50_s": 1,
        "ttft_p95_s": 2,
        "last_first_text_s": 3,
        "tokens_per_second_in_all": 8 / 8,
        "failed": 0,
        "other_length": 0,
    }


def test_a_failed_request_stays_in_the_percentiles_as_one_that_never_answers() -> None:
    shown = figures([answer(1, 2), answer(failure="HTTP 500")])
    waits = shown["ttft_p50_s"], shown["ttft_p95_s"], shown["last_first_text_s"]
    assert waits == (1, math.inf, math.inf)
    assert shown["failed"] == 1
    assert shown["tokens_per_second_in_all"] == 4 / 9  # the failure took nine seconds
    assert figures([answer(failure="HTTP 500")])["tokens_per_second_in_all"] == 0


def test_medians_are_over_rounds_and_tokens_are_the_servers_count_where_it_gives_one() -> None:
    rounds = [[answer(1, end, reported=count)] for end, count in ((2, 3), (8, 4), (4, None))]
    [shown] = rows([Run("ours", "chat", "at once", 1, answers) for answers in rounds])
    assert shown["tokens_per_second_in_all"] == 1  # of 3 / 2, 4 / 8 and 4 / 4
    assert (shown["server"], shown["pupils"], shown["other_length"]) == ("ours", 1, 2)


def test_passages_are_as_long_as_the_callers_and_never_the_same_three() -> None:
    texts = workload.TEXTS["passages"]
    assert all(1800 <= len("\n\n".join(three)) <= 2600 for three in permutations(texts, 3))
    assert all(len(text) <= 800 for text in texts)
    assert len({workload.passages(number) for number in range(336)}) == 336


def test_no_pupil_asks_what_another_did_and_each_begins_differently() -> None:
    questions = [workload.inputs("chat", number)["user_message"] for number in range(300)]
    assert len({question.partition(". ")[0] for question in questions}) == 300


def test_a_full_server_is_asked_again_and_the_wait_counts() -> None:
    full = [as_json({"detail": "full"}, status) for status in (429, 409, 503)]
    with Double(replies=[*full, cog_answer()]) as server:
        [heard] = gather(Cog("cog", server.url), [INPUTS])
    assert (heard.failure, heard.reported, len(heard.times), len(server.asked)) == ("", 64, 2, 4)
    assert heard.times[0] >= 1  # as the 429 wanted


@pytest.mark.parametrize(("wait", "seconds"), [("9" * 400, 3600), ("²", 0), ("soon", 0)])
def test_a_wait_that_no_clock_can_keep_is_none(wait: str, seconds: float) -> None:
    with pytest.raises(Busy) as full:
        check(httpx2.Response(503, headers=[(b"Retry-After", wait.encode("latin-1"))]))
    assert full.value.seconds == seconds


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (as_json({"detail": "no"}, 500), "HTTP 500"),
        (cog_answer("failed"), "it broke"),
        (as_events(BON), "ended before"),
        (as_json({"output": "not a stream"}), "text/event-stream"),
        (as_events("event: output\ndata: nonsense"), "JSONDecodeError"),
        (as_events('event: completed\ndata: {"status": "succeeded"}'), "without any text"),
    ],
)
def test_a_request_that_fails_says_why(broken: Reply, reason: str) -> None:
    with Double(replies=[broken]) as server:
        [heard] = gather(Cog("cog", server.url), [INPUTS])
    assert reason in heard.failure


def chunk(text: str, tokens: int | None = None, reason: str | None = None) -> str:
    usage = None if tokens is None else {"completion_tokens": tokens}
    choice = {"delta": {"content": text}, "finish_reason": reason}
    return f"data: {json.dumps({'choices': [choice], 'usage': usage})}"


def test_chat_completions_are_read_with_and_without_a_last_word() -> None:
    vllm = as_events(chunk("Bon", 1), chunk("jour", 3, "length"), "data: [DONE]")
    transformers = as_events(chunk("Bonjour"), chunk("", 3, "length"))
    broken = [as_events(chunk("Bon")), as_events('data: {"error": "out of memory"}')]
    with Double(replies=[vllm, transformers, *broken]) as server:
        endpoint = ChatCompletions("peer", f"{server.url}/v1", "model", {"top_k": 20})
        for pieces in ([("Bon", 1), ("jour", 3)], [("Bonjour", None), ("", 3)]):
            assert [(piece.text, piece.tokens) for piece in endpoint.ask(INPUTS)] == pieces
        for reason in ("ended before", "out of memory"):
            with pytest.raises(Failed, match=reason):
                list(endpoint.ask(INPUTS))
    asked = server.asked[0]
    assert asked["messages"][0] == {"role": "system", "content": persona("spinoza")}
    assert [asked[name] for name in ("max_tokens", "top_k", "stream")] == [64, 20, True]


@pytest.mark.server
def test_the_tool_measures_a_server_and_keeps_what_it_saw(
    cog: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that is already running, in place of the one that it would start."""
    started = contextlib.nullcontext(Started(Cog("ours", cog.url), time.monotonic()))
    monkeypatch.setattr(tool, "ours", lambda *_: started)
    monkeypatch.setattr(local, "settings", dict)
    options = ["--concurrency", "2", "--rounds", "1", "--class", "3", "--output", str(tmp_path)]
    assert scripts.code("benchmark", *options) == 0
    kept = json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))
    asked = [(run["workload"], run["kind"], run["pupils"]) for run in kept["runs"]]
    assert asked == [("chat", "at once", 2), ("chat", "class", 3)]
    assert all(row["tokens_per_second_in_all"] > 0 for row in kept["tables"]["figures"])
    assert not any(row["failed"] or row["other_length"] for row in kept["tables"]["figures"])
    assert kept["tables"]["start"][0]["to_first_text_s"] > 0
    assert {"date", "machine", "versions"} <= set(kept)
    assert (tmp_path / "benchmark.md").read_text(encoding="utf-8") == capsys.readouterr().out


def test_the_tool_reports_a_request_that_fails_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--concurrency", "2", "--rounds", "1", "--output", str(tmp_path)]
    with Double(replies=[cog_answer(), cog_answer(), as_json({"detail": "no"}, 500)]) as server:
        assert scripts.code("benchmark", server.url, *options) == 1
    assert "1 failed: HTTP 500" in capsys.readouterr().err
    [shown] = json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))["tables"]["figures"]
    assert (shown["failed"], shown["ttft_p95_s"]) == (1, None)
