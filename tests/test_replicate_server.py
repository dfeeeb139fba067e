"""The Replicate test server does what Replicate documents, in front of a real Cog server on a tiny model."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replicate_predictions import sent
from replicate_server import ReplicateServer
from server import Server
from tiny import save_tiny
from waiting import until

from snb.settings import ROOT

pytestmark = pytest.mark.server
SHORT = {"user_message": "Bonjour", "max_tokens": 40, "min_tokens": 40, "seed": 3}
LONG = {"user_message": "Bonjour", "max_tokens": 2048, "min_tokens": 2048, "seed": 3}
SLOTS = 4


@pytest.fixture(scope="module")
def cog(tmp_path_factory: pytest.TempPathFactory, log: Path) -> Iterator[Server]:
    """A Cog server with few places, on a model slow enough that its answers outlast their deadlines."""
    base = save_tiny(tmp_path_factory.mktemp("tiny"), num_hidden_layers=24)
    environment = {"SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none", "COG_MAX_CONCURRENCY": str(SLOTS)}
    with log.open("w") as file, Server(environment, log=file) as server:
        server.wait()
        yield server


@pytest.fixture(scope="module")
def shared(cog: Server) -> Iterator[ReplicateServer]:
    with ReplicateServer(cog.url, shortest_deadline=1) as server:
        yield server


@pytest.fixture
def server(shared: ReplicateServer) -> ReplicateServer:
    """As new, but for the predictions made."""
    httpx.delete(f"{shared.url}/_test/faults")
    httpx.delete(f"{shared.url}/_test/log")
    httpx.post(f"{shared.url}/_test/settings", json={"official": False})
    return shared


@pytest.fixture
def http(server: ReplicateServer) -> Iterator[httpx.Client]:
    """A caller with the right token."""
    headers = {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def create(server: ReplicateServer, http: httpx.Client) -> Any:
    """Asks for a prediction of the version."""

    def ask(inputs: dict[str, Any], **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return http.post("/v1/predictions", json={"version": server.version, "input": inputs}, headers=named)

    return ask


def reached(http: httpx.Client, prediction: dict[str, Any], *statuses: str) -> dict[str, Any]:
    """The prediction once it has one of the statuses."""
    shown: dict[str, Any] = {}

    def there() -> bool:
        shown.update(http.get(prediction["urls"]["get"]).json())
        return shown["status"] in statuses

    until(there)
    return shown


def over(http: httpx.Client, prediction: dict[str, Any]) -> dict[str, Any]:
    return reached(http, prediction, "succeeded", "failed", "canceled", "aborted")


def read(url: str, **headers: str) -> bytes:
    """A whole stream, without a token."""
    return httpx.get(url, headers={"Accept": "text/event-stream", **headers}, timeout=60).content


def parsed(stream: bytes) -> list[tuple[str, str, str]]:
    """Event, id and data as https://html.spec.whatwg.org/multipage/server-sent-events.html reads them."""
    found = []
    for block in stream.decode().split("\n\n")[:-1]:
        fields: dict[str, list[str]] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        found.append((fields["event"][0], fields["id"][0], "\n".join(fields["data"])))
    return found


def text(events: list[tuple[str, str, str]]) -> str:
    return "".join(data for event, _, data in events if event == "output")


def lines(output: list[str]) -> str:
    """A text as a stream carries it, piece by piece: what ends a line is a line feed then."""
    return "".join(re.sub("\r\n|\r", "\n", piece) for piece in output)


def stopped(log: Path, start: int, number: int = 1) -> list[int]:
    """After how many tokens the Cog server was stopped so often; `start` is the length of its log before."""
    counts: list[str] = []

    def there() -> bool:
        counts[:] = re.findall(r"canceled after (\d+)", log.read_text()[start:])
        return len(counts) == number

    until(there)
    return list(map(int, counts))


# Predictions


def test_a_prediction_is_what_the_cog_server_makes_of_the_same_input(
    cog: Server, http: httpx.Client, create: Any
) -> None:
    reply = create(SHORT)
    assert reply.status_code == 201
    first, last = reply.json(), over(http, reply.json())
    assert (first["status"], first["output"], first["completed_at"]) == ("starting", None, None)
    direct = httpx.post(f"{cog.url}/predictions", json={"input": SHORT}, timeout=60).json()
    assert last["output"] == direct["output"]
    assert last["status"] == "succeeded"
    assert last["input"] == SHORT
    assert last["created_at"] < last["started_at"] < last["completed_at"]
    metrics = ("input_token_count", "output_token_count", "finish_reason", "seed")
    assert {name: last["metrics"][name] for name in metrics} == {
        name: direct["metrics"][name] for name in metrics
    }
    assert 0 < last["metrics"]["predict_time"] <= last["metrics"]["total_time"]
    assert set(last["urls"]) == {"get", "cancel", "stream", "web"}
    assert http.get("/v1/predictions").json()["results"][0] == last


def test_the_version_goes_with_the_name_or_without(server: ReplicateServer, http: httpx.Client) -> None:
    for version in (server.version, f"owner/spinoza:{server.version}"):
        reply = http.post("/v1/predictions", json={"version": version, "input": SHORT})
        assert (reply.status_code, reply.json()["version"]) == (201, server.version)


@pytest.mark.parametrize("version", ["0" * 64, "owner/spinoza", "owner/kant:{}", "owner/spinoza:latest"])
def test_an_unknown_version_is_refused(server: ReplicateServer, http: httpx.Client, version: str) -> None:
    body = {"version": version.format(server.version), "input": SHORT}
    reply = http.post("/v1/predictions", json=body)
    assert reply.status_code == reply.json()["status"] == 422
    assert reply.json()["title"] == "Invalid version or not permitted"
    assert reply.headers["content-type"] == "application/problem+json"


def test_only_an_official_model_is_called_by_its_name(server: ReplicateServer, http: httpx.Client) -> None:
    path = "/v1/models/owner/spinoza/predictions"
    reply = http.post(path, json={"input": SHORT})
    assert (reply.status_code, reply.json()["status"]) == (404, 404)
    assert http.post("/_test/settings", json={"official": True}).json()["official"] is True
    reply = http.post(path, json={"input": SHORT})
    assert (reply.status_code, reply.json()["version"]) == (201, "hidden")
    assert http.post("/v1/predictions", json={"version": "owner/spinoza", "input": SHORT}).is_success
    assert http.post("/v1/models/owner/kant/predictions", json={"input": SHORT}).status_code == 404


def test_a_deployment_is_called_by_its_name(server: ReplicateServer, http: httpx.Client) -> None:
    release = http.get("/v1/deployments/owner/classe").json()["current_release"]
    assert (release["model"], release["version"]) == ("owner/spinoza", server.version)
    reply = http.post("/v1/deployments/owner/classe/predictions", json={"input": SHORT})
    assert (reply.status_code, reply.json()["deployment"]) == (201, "owner/classe")
    assert over(http, reply.json())["status"] == "succeeded"
    assert http.post("/v1/deployments/owner/spinoza/predictions", json={"input": SHORT}).status_code == 404


def test_the_version_has_the_schema_of_the_cog_server(
    cog: Server, server: ReplicateServer, http: httpx.Client
) -> None:
    model = http.get("/v1/models/owner/spinoza").json()
    version = model["latest_version"]
    assert version["id"] == server.version
    assert version["openapi_schema"]["components"] == cog.get("/openapi.json")["components"]
    versions = "/v1/models/owner/spinoza/versions"
    assert (
        http.get(versions).json()["results"] == [version] == [http.get(f"{versions}/{version['id']}").json()]
    )
    for path in (f"{versions}/{'0' * 64}", "/v1/models/owner/kant", "/v1/predictions/none"):
        assert http.get(path).status_code == 404


@pytest.mark.parametrize(
    ("inputs", "detail"),
    [
        ({}, "- input: user_message is required\n"),
        ({"user_message": ""}, "- input.user_message: String length must be greater than or equal to 1\n"),
        (
            {"user_message": "?", "max_tokens": 0},
            "- input.max_tokens: Must be greater than or equal to 1\n",
        ),
        (
            {"user_message": 3, "top_k": True},
            "- input.user_message: Invalid type. Expected: string, given: integer\n"
            "- input.top_k: Invalid type. Expected: integer, given: boolean\n",
        ),
        (
            {"user_message": "?", "philosopher": "descartes"},
            '- input.philosopher: philosopher must be one of the following: "spinoza", "bergson", "kant"\n',
        ),
    ],
)
def test_every_fault_of_an_input_is_named_and_nothing_is_created(
    http: httpx.Client, create: Any, inputs: dict[str, Any], detail: str
) -> None:
    made = http.get("/v1/predictions").json()
    problem = create(inputs).json()
    assert (problem["title"], problem["detail"]) == ("Input validation failed", detail)
    assert len(problem["invalid_fields"]) == detail.count("\n")
    assert http.get("/v1/predictions").json() == made


def test_a_body_of_another_shape_is_refused(http: httpx.Client) -> None:
    problem = http.post("/v1/predictions", json={"model": "owner/spinoza", "input": {}}).json()
    assert problem["detail"] == "- version is required\n- Additional property model is not allowed\n"
    assert http.post("/v1/predictions", content=b"{").status_code == 400


VALUES: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-3, 3000) | st.floats(-3, 3) | st.text(max_size=3) | st.just([])
)
NAMES = (
    "philosopher",
    "rag_context",
    "history",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=2))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
def test_it_refuses_what_the_cog_server_would(cog: Server, create: Any, inputs: dict[str, Any]) -> None:
    inputs = {"user_message": "Bonjour", "max_tokens": 1, "deadline_seconds": 1, **inputs}
    here = create(inputs, Prefer="wait")
    direct = httpx.post(f"{cog.url}/predictions", json={"input": inputs}, timeout=60)
    assert (here.status_code == 422) == (direct.status_code == 422)


@pytest.mark.parametrize(
    ("authorization", "detail"),
    [
        ({}, "You did not pass an authentication token"),
        ({"Authorization": "Bearer r8_other"}, "You did not pass a valid authentication token"),
    ],
)
def test_without_the_token_nothing_is_done(
    server: ReplicateServer, authorization: dict[str, str], detail: str
) -> None:
    body = {"version": server.version, "input": SHORT}
    reply = httpx.post(f"{server.url}/v1/predictions", json=body, headers=authorization)
    assert reply.status_code == 401
    assert reply.json() == {"title": "Unauthenticated", "detail": detail, "status": 401}
    assert httpx.get(f"{server.url}/v1/models/owner/spinoza", headers=authorization).status_code == 401
    assert [entry["authorized"] for entry in server.log] == [bool(authorization)] * 2


def test_a_prediction_that_the_model_refuses_has_failed_and_its_stream_says_so(
    http: httpx.Client, create: Any
) -> None:
    inputs = {**SHORT, "history": [{"role": "system", "content": "?"}]}
    prediction = over(http, create(inputs).json())
    assert prediction["status"] == "failed"
    assert "BAD_INPUT: history[0].role" in prediction["error"]
    events = parsed(read(prediction["urls"]["stream"]))
    assert [(event, json.loads(data)) for event, _, data in events] == [
        ("error", {"detail": prediction["error"]}),
        ("done", {"reason": "error"}),
    ]
    assert create(inputs, Prefer="wait").json()["status"] == "failed"


def test_what_finds_no_place_waits_its_turn(http: httpx.Client, create: Any, log: Path) -> None:
    written = len(log.read_text())
    running = [create(LONG).json() for _ in range(SLOTS)]
    for prediction in running:
        reached(http, prediction, "processing")
    waiting = create(SHORT).json()
    assert http.get(waiting["urls"]["get"]).json()["status"] == "starting"
    for prediction in running:
        http.post(prediction["urls"]["cancel"])
    assert over(http, waiting)["status"] == "succeeded"
    stopped(log, written, SLOTS)


# Waiting, deadlines, cancel


def test_a_reply_that_waits_has_the_whole_output_and_no_final_status(http: httpx.Client, create: Any) -> None:
    reply = create(SHORT, Prefer="wait=60")
    assert (reply.status_code, reply.headers["preference-applied"]) == (201, "wait=60")
    assert (reply.json()["status"], reply.json()["completed_at"]) == ("processing", None)
    assert reply.json()["output"] == over(http, reply.json())["output"]


def test_a_reply_that_waited_in_vain_says_starting_and_the_prediction_goes_on(
    server: ReplicateServer, http: httpx.Client, create: Any
) -> None:
    server.fail("POST", "/v1/predictions", cold=4)
    reply = create(SHORT, Prefer="wait=1")
    assert (reply.status_code, reply.json()["status"], reply.json()["output"]) == (202, "starting", None)
    assert over(http, reply.json())["status"] == "succeeded"


@pytest.mark.parametrize("prefer", ["wait=0", "wait=61", "wait=", "wait=x", "respond-async"])
def test_it_waits_from_1_to_60_seconds(create: Any, prefer: str) -> None:
    assert create(SHORT, Prefer=prefer).status_code == 422


def test_a_deadline_aborts_what_has_not_started(
    server: ReplicateServer, http: httpx.Client, create: Any
) -> None:
    server.fail("POST", "/v1/predictions", cold=600)
    prediction = over(http, create(SHORT, Cancel_After="1s").json())
    assert (prediction["status"], prediction["started_at"]) == ("aborted", None)
    assert "predict_time" not in prediction["metrics"]


def test_a_deadline_cancels_what_runs(http: httpx.Client, create: Any, log: Path) -> None:
    written = len(log.read_text())
    asked = [create(LONG, Cancel_After="3").json() for _ in range(SLOTS)]
    assert {over(http, prediction)["status"] for prediction in asked} == {"canceled"}
    assert max(stopped(log, written, SLOTS)) < 2048


@pytest.mark.parametrize("duration", ["30s", "1m30s", "2h", "90"])
def test_a_duration_has_units_or_is_in_seconds(http: httpx.Client, create: Any, duration: str) -> None:
    assert over(http, create(SHORT, Cancel_After=duration).json())["status"] == "succeeded"


@pytest.mark.parametrize("duration", ["", "4", "4s", "soon", "1.5m", "-5s", "25h"])
def test_a_deadline_is_from_5_seconds_to_a_day(cog: Server, duration: str) -> None:
    with ReplicateServer(cog.url) as server:
        headers = {"Authorization": f"Bearer {server.token}", "Cancel-After": duration}
        body = {"version": server.version, "input": SHORT}
        assert httpx.post(f"{server.url}/v1/predictions", json=body, headers=headers).status_code == 422


def test_a_cancel_stops_the_cog_server_and_ends_the_stream(
    http: httpx.Client, create: Any, log: Path
) -> None:
    written = len(log.read_text())
    prediction = create(LONG).json()
    headers = {"Accept": "text/event-stream"}
    with httpx.stream("GET", prediction["urls"]["stream"], headers=headers, timeout=60) as stream:
        pieces = stream.iter_bytes()
        got = next(pieces)
        canceled = http.post(prediction["urls"]["cancel"]).json()
        got += b"".join(pieces)
    assert canceled["status"] == "canceled"
    [tokens] = stopped(log, written)
    assert 0 < tokens < 2048
    *_, (event, _, data) = parsed(got)
    assert (event, json.loads(data)) == ("done", {"reason": "canceled"})
    assert text(parsed(got)) == lines(canceled["output"])
    assert http.post(prediction["urls"]["cancel"]).json() == canceled


def test_a_cancel_after_the_end_changes_nothing(http: httpx.Client, create: Any) -> None:
    prediction = over(http, create(SHORT).json())
    assert http.post(prediction["urls"]["cancel"]).json() == prediction


def test_the_cog_server_stops_with_it(cog: Server, log: Path) -> None:
    written = len(log.read_text())
    with ReplicateServer(cog.url) as server:
        headers = {"Authorization": f"Bearer {server.token}"}
        body = {"version": server.version, "input": LONG}
        prediction = httpx.post(f"{server.url}/v1/predictions", json=body, headers=headers).json()
        reached(httpx.Client(headers=headers), prediction, "processing")
    assert stopped(log, written)[0] < 2048


def test_a_cog_server_that_is_not_there_is_a_boot_that_lasts() -> None:
    with ReplicateServer("http://127.0.0.1:9", shortest_deadline=1) as server:
        headers = {"Authorization": f"Bearer {server.token}", "Cancel-After": "1s"}
        body = {"version": server.version, "input": SHORT}
        prediction = httpx.post(f"{server.url}/v1/predictions", json=body, headers=headers).json()
        assert over(httpx.Client(headers=headers), prediction)["status"] == "aborted"


# Streams


def test_a_stream_is_the_output_for_one_who_comes_early_late_or_again(
    http: httpx.Client, create: Any
) -> None:
    prediction = create(SHORT).json()
    early = read(prediction["urls"]["stream"])
    done = over(http, prediction)
    assert read(prediction["urls"]["stream"]) == early
    events = parsed(early)
    assert text(events) == lines(done["output"]) != ""
    assert (events[-1][0], events[-1][2]) == ("done", "{}")
    assert len({name for _, name, _ in events}) == len(events)
    for after in (0, 5, len(events) - 1):
        rest = read(prediction["urls"]["stream"], **{"Last-Event-ID": events[after][1]})
        assert parsed(rest) == events[after + 1 :]


def test_the_first_event_comes_while_the_rest_is_not_there_yet(
    http: httpx.Client, create: Any, log: Path
) -> None:
    written = len(log.read_text())
    prediction = create(LONG).json()
    headers = {"Accept": "text/event-stream"}
    with httpx.stream("GET", prediction["urls"]["stream"], headers=headers, timeout=60) as stream:
        next(stream.iter_bytes())
        now = http.get(prediction["urls"]["get"]).json()
    assert (now["status"], now["completed_at"]) == ("processing", None)
    assert now["output"]
    http.post(prediction["urls"]["cancel"])
    stopped(log, written)


def test_a_stream_has_its_own_type_and_a_secret_address(create: Any) -> None:
    url = create(SHORT).json()["urls"]["stream"]
    assert httpx.get(url, headers={"Accept": "application/json"}).status_code == 406
    assert httpx.get(url[:-1], headers={"Accept": "text/event-stream"}).status_code == 404


@given(st.text())
def test_any_text_survives_as_an_event_but_for_how_its_lines_end(data: str) -> None:
    assert parsed(sent("output", "1:0", data)) == [("output", "1:0", lines([data]))]


# Faults


def test_a_status_befalls_the_next_requests_of_its_kind(http: httpx.Client, create: Any) -> None:
    fault = {"method": "POST", "path": "/v1/predictions", "times": 2, "status": 429}
    http.post("/_test/faults", json={**fault, "headers": {"Retry-After": "7"}})
    assert http.get("/v1/predictions").is_success
    for _ in range(2):
        reply = create(SHORT)
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "7")
        assert "throttled" in reply.json()["detail"]
    assert create(SHORT).status_code == 201
    assert http.get("/_test/faults").json() == []


@pytest.mark.parametrize(
    ("fault", "kind", "part"),
    [
        ({"status": 402}, "application/problem+json", "Insufficient credit"),
        ({"status": 503}, "application/problem+json", "Service unavailable"),
        ({"status": 524}, "text/html", "A timeout occurred"),
        ({"status": 502, "body": "<h1>Bad gateway</h1>"}, "text/html", "<h1>"),
        ({"status": 500, "body": {"detail": "no"}}, "application/problem+json", '{"detail": "no"}'),
    ],
)
def test_a_reply_may_be_of_the_api_or_of_a_proxy(
    server: ReplicateServer, create: Any, fault: dict[str, Any], kind: str, part: str
) -> None:
    server.fail("POST", "/v1/predictions", **fault)
    reply = create(SHORT)
    assert reply.status_code == fault["status"]
    assert reply.headers["content-type"].startswith(kind)
    assert part in reply.text


def test_a_reply_may_be_lost_after_the_prediction_was_made(
    server: ReplicateServer, http: httpx.Client, create: Any
) -> None:
    server.fail("POST", "/v1/predictions", drop=True)
    inputs = {**SHORT, "user_message": "La réponse se perd."}
    with pytest.raises(httpx.TransportError):
        create(inputs)
    made = http.get("/v1/predictions").json()["results"]
    assert [prediction["input"] for prediction in made].count(inputs) == 1
    assert [entry["status"] for entry in server.log] == [None, 200]


def test_a_reply_may_be_slow(server: ReplicateServer, http: httpx.Client, create: Any) -> None:
    order = []
    made = len(http.get("/v1/predictions").json()["results"])
    server.fail("POST", "/v1/predictions", delay=3)
    slow = threading.Thread(target=lambda: order.append(create(SHORT).status_code))
    slow.start()
    until(lambda: len(http.get("/v1/predictions").json()["results"]) > made)
    order.append(http.get("/v1/models/owner/spinoza").status_code)
    slow.join()
    assert order == [200, 201]


def streamed(url: str) -> tuple[list[bytes], bool]:
    """The pieces of a stream as they were read, and whether it ended as a whole reply does."""
    pieces: list[bytes] = []
    headers = {"Accept": "text/event-stream"}
    with httpx.stream("GET", url, headers=headers, timeout=60) as stream:
        try:
            pieces.extend(stream.iter_raw())
        except httpx.TransportError:
            return pieces, False
    return pieces, True


@pytest.mark.parametrize("then", ["end", "drop", "resume"])
@pytest.mark.parametrize("inside", ["", "event", "character"])
def test_a_stream_may_be_cut(
    server: ReplicateServer, http: httpx.Client, create: Any, inside: str, then: str
) -> None:
    prediction = over(http, create({**LONG, "max_tokens": 80, "min_tokens": 80}).json())
    url = prediction["urls"]["stream"]
    whole = read(url)
    server.fail("GET", "/v1/streams", cut={"after": 3, "inside": inside, "then": then})
    pieces, ended = streamed(url)
    got = b"".join(pieces)
    assert ended == (then != "drop")
    if then == "resume":
        assert got == whole
        return
    assert whole.startswith(got)
    assert b"event: done" not in got
    assert got.count(b"\n\n") >= 3
    assert (got.count(b"\n\n") == 3) or inside == "character"
    assert got.endswith(b"\n\n") == (inside == "")
    with pytest.raises(UnicodeDecodeError) if inside == "character" else contextlib.nullcontext():
        got.decode()
    assert read(url) == whole


def test_a_cut_character_that_is_resumed_comes_in_two_pieces(
    server: ReplicateServer, http: httpx.Client, create: Any
) -> None:
    prediction = over(http, create({**LONG, "max_tokens": 80, "min_tokens": 80}).json())
    server.fail("GET", "/v1/streams", cut={"inside": "character", "then": "resume"})
    pieces, _ = streamed(prediction["urls"]["stream"])
    broken = 0
    for end in range(1, len(pieces)):
        try:
            b"".join(pieces[:end]).decode()
        except UnicodeDecodeError:
            broken += 1
    assert broken > 0


def test_a_boot_may_take_its_time_or_fail(server: ReplicateServer, http: httpx.Client, create: Any) -> None:
    server.fail("POST", "/v1/predictions", cold=0.5)
    server.fail("POST", "/v1/predictions", setup_failed=True)
    cold, broken, well = (create(SHORT).json() for _ in range(3))
    assert over(http, well)["status"] == "succeeded"
    assert "failed to boot" in over(http, broken)["error"]
    assert over(http, broken)["started_at"] is None
    assert over(http, cold)["status"] == "succeeded"


@pytest.mark.parametrize(
    "fault",
    [
        {"method": "GET"},
        {"method": "GET", "path": "/", "stauts": 500},
        {"method": "GET", "path": "/", "cut": {"inside": "word"}},
    ],
)
def test_a_fault_that_is_none_is_refused(http: httpx.Client, fault: dict[str, Any]) -> None:
    assert http.post("/_test/faults", json=fault).status_code == 400
    assert http.post("/_test/settings", json={"oficial": True}).status_code == 400


def test_the_log_has_what_was_asked_and_no_token(
    server: ReplicateServer, http: httpx.Client, create: Any
) -> None:
    create(SHORT, Cancel_After="30s")
    log = http.get("/_test/log")
    [entry] = log.json()
    assert (entry["method"], entry["path"], entry["status"]) == ("POST", "/v1/predictions", 201)
    assert entry["headers"]["cancel-after"] == "30s"
    assert entry["body"]["input"] == SHORT
    assert server.token not in log.text
    assert http.delete("/_test/log").json() == []


def test_it_runs_on_its_own_until_its_input_ends(cog: Server) -> None:
    command = [sys.executable, str(ROOT / "tests" / "replicate_server.py"), cog.url]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REPLICATE_API_TOKEN": "r8_mine"}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        said = json.loads(process.stdout.readline())
        headers = {"Authorization": "Bearer r8_mine", "Prefer": "wait"}
        body = {"version": said["version"], "input": SHORT}
        assert httpx.post(f"{said['url']}/v1/predictions", json=body, headers=headers, timeout=60).json()[
            "output"
        ]
        process.stdin.close()  # type: ignore[union-attr]
        assert process.wait(20) == 0
