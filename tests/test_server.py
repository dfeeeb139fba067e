"""The endpoint as callers see it: the real Cog server on loopback, with a tiny model."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from snb.philosophers import names, persona
from tests.hosts import puppet, puppet_server
from tests.waiting import until
from tools.rehearsing.checks import METRICS
from tools.serving.server import COG, Server, SetupFailed

pytestmark = pytest.mark.server
SECRET = "prénom-du-pupille"


def ask(cog: Server, **inputs: Any) -> dict[str, Any]:
    """The reply to a prediction without streaming."""
    reply = httpx.post(
        f"{cog.url}/predictions", json={"input": {"user_message": "Bonjour", **inputs}}, timeout=60
    )
    reply.raise_for_status()
    return reply.json()  # type: ignore[no-any-return]


def test_the_stream_and_the_plain_reply_give_the_same_answer_and_metrics(cog: Server) -> None:
    inputs = {"user_message": "Bonjour", "temperature": 0, "max_tokens": 30}
    events = list(cog.stream(**inputs))
    chunks = [data for event, data in events if event == "output"]
    assert [data["index"] for data in chunks] == list(range(len(chunks)))
    reply = ask(cog, **inputs)
    assert "".join(data["chunk"] for data in chunks) == "".join(reply["output"]) != ""
    [done] = [data for event, data in events if event == "completed"]
    expected = {*METRICS, "tokens_per_second", "rag_context_truncated_tokens", "rag_context_read"}
    for metrics in (done["metrics"], reply["metrics"]):
        assert expected <= set(metrics)
        assert (metrics["output_token_count"], metrics["finish_reason"]) == (30, "length")


def test_each_philosopher_answers_by_his_own_persona(cog: Server) -> None:
    lengths = set()
    for name in names():
        named = ask(cog, philosopher=name, temperature=0, max_tokens=20)
        given = ask(cog, system_prompt=persona(name), temperature=0, max_tokens=20)
        assert "".join(named["output"]) == "".join(given["output"])
        lengths.add(named["metrics"]["input_token_count"])
    assert len(lengths) == 3


def test_zero_is_a_seed_and_without_one_the_metric_gives_the_text_again(cog: Server) -> None:
    """The distribution is so nearly uniform, whatever the model, that two seeds cannot agree on 50 tokens."""
    how = {"max_tokens": 50, "min_tokens": 50, "temperature": 2, "top_p": 1, "top_k": 0}
    zero, other, drawn = (ask(cog, **how, **seed) for seed in ({"seed": 0}, {"seed": 1}, {}))
    assert zero["metrics"]["seed"] == 0
    texts = ["".join(reply["output"]) for reply in (zero, other, drawn)]
    assert len({*texts}) == 3
    for seed, text in ((0, texts[0]), (drawn["metrics"]["seed"], texts[2])):
        assert "".join(ask(cog, **how, seed=seed)["output"]) == text
    stopped = ask(cog, **how, seed=0, stop_sequences=[texts[0][-40:-30]])
    assert stopped["metrics"]["finish_reason"] == "stop_sequence"


def test_the_log_has_no_word_of_a_caller_and_says_what_the_boot_chose_and_proved(
    cog: Server, cog_log: Path
) -> None:
    told = {"user_message": SECRET, "rag_context": SECRET, "system_prompt": SECRET}
    answer = "".join(ask(cog, **told, max_tokens=40, min_tokens=40)["output"])
    ask(cog, history=[{"role": SECRET, "content": SECRET}])
    until(lambda: "after 40 tokens" in cog_log.read_text(), log=cog_log)  # logged perhaps after the answer
    written = cog_log.read_text()
    assert not [word for word in (SECRET, answer, "Traceback") if word in written]
    for said in ("computing in torch.float32", "self-test: positions 64"):
        assert said in written


def test_a_boot_that_cannot_succeed_says_why_on_one_line(tmp_path: Path) -> None:
    folder = puppet(tmp_path, "set-up")
    said = "^BAD_SETTING: SNB_PRECISON is not a setting"
    with puppet_server(folder, COG, SNB_PRECISON="nf4") as server, pytest.raises(SetupFailed, match=said):
        server.wait()
    assert "BAD_SETTING: SNB_PRECISON is not a setting" in (folder / "log").read_text()
    assert "Traceback" not in (folder / "log").read_text()
