"""The page at `/` and the Gradio app under it, whose endpoints serve the page like any other caller."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr
from backend import Backends
from chat import answer_of, chat_function_of
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from gradio.events import api
from guard import Guard
from refusal import Refusal
from routes import CHATS, Routes
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Match, Route
from visitor import VISITORS
from words import ERRORS, NOTES, PHILOSOPHERS, STATES

from snb.request import MAX_MESSAGE, MAX_TEXT

HERE = Path(__file__).resolve().parent
FILES = {file.name: file for file in (HERE / "page").iterdir()}
PACKED = [Middleware(GZipMiddleware)]
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

OPEN_DOCUMENTATION = """<script>
  const look = setInterval(() => {
    const button = document.querySelector("footer .show-api");
    if (!button) return;
    clearInterval(look);
    button.click();
    if (!location.search.includes("view=api")) button.click();
  }, 100);
</script>"""
"""For /?view=api: Gradio 6.31.0 loads its API page only when its button is pressed, not when the address asks
for it, and the first press then closes the empty page. Delete this when the address is enough."""
QUEUE = 200
"""Questions that may wait for a place; any more are turned away."""


SESSIONS = 2 * VISITORS + QUEUE
"""Sessions that Gradio remembers: all that can be in progress, and some whose reader has yet to come."""
UNCLEAR = (RequestValidationError, KeyError, TypeError)
"""What Gradio's routes raise for an invalid number, session or input name."""


class Endpoints(gr.Blocks):
    """A Gradio app whose endpoints take and return JSON unchanged.

    Gradio 6.31.0 itself looks for files in the JSON and fetches them from whatever address they give, prints
    values that it rejects, even a pupil's question, and keeps the last inputs and outputs of 10,000 sessions.
    """

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *_: Any) -> list[Any]:
        """See Gradio's; inputs that a caller of /call left out at the end get their defaults."""
        parameters = gr.utils.get_function_params(block_fn.fn)
        missing = parameters[len(inputs) :]
        if any(not has_default for _, has_default, *_ in missing):
            raise Refusal("BAD_INPUT", f"{missing[0][0]} is missing").shown()
        if len(inputs) > len(parameters):
            raise Refusal("BAD_INPUT", f"there are {len(parameters)} inputs, not {len(inputs)}").shown()
        return [*inputs, *(default for _, _, default, _ in missing)]

    async def postprocess_data(self, block_fn: Any, predictions: Any, _: Any) -> list[Any]:
        """See Gradio's."""
        return list(predictions)


class Unread(gr.utils.LRUCache[str, Any]):
    """The unread messages of each session, by its name.

    Gradio 6.31.0 keeps 2,000 and drops the oldest, not the least recently used, so that a flood ends others'
    answers; and it never drops the sessions' names. Delete this when it drops both.
    """

    def __init__(self, queue: Any) -> None:
        super().__init__(SESSIONS)
        self._events = queue.pending_event_ids_session

    def __getitem__(self, session: str) -> Any:
        self.move_to_end(session)
        return super().__getitem__(session)

    def popitem(self, last: bool = True) -> tuple[str, Any]:
        """See OrderedDict's."""
        session, messages = super().popitem(last)
        self._events.pop(session, None)
        return session, messages


def gradio_app(backends: Backends) -> gr.Blocks:
    """The endpoints, and nothing else."""
    blocks = Endpoints(title="Trois philosophes", analytics_enabled=False)
    blocks.state_session_capacity = SESSIONS
    with blocks:
        # chat_function comes first: callers of the first Space ask for number 0.
        chats = [chat_function_of(backends, *chat) for chat in CHATS.items()]
        for endpoint in (*chats, answer_of(backends)):
            api(endpoint, api_name=endpoint.__name__, concurrency_limit=VISITORS, concurrency_id="answers")
    for function in blocks.fns.values():
        describe(function)
    blocks.max_threads = VISITORS
    # Nothing bypasses the queue: /run would answer without its limits.
    blocks.queue(max_size=QUEUE, api_open=False)
    blocks._queue.pending_messages_per_session = Unread(blocks._queue)
    return blocks


def describe(function: Any) -> None:
    """Puts the docstring's text for each parameter into Gradio's API page, which else says "1st", "2nd"."""
    _, words, _ = gr.utils.get_function_description(function.fn)
    parameters = gr.utils.get_function_params(function.fn)
    for component, (name, *_) in zip(function.inputs, parameters, strict=True):
        component.label = name
        component._api_info = {**component._api_info, "additional_description": words[name]}


class Page(Route):
    """The route of the page, which leaves `/?view=…` to Gradio."""

    def matches(self, scope: Any) -> Any:
        """See Starlette's."""
        return (Match.NONE, {}) if b"view=" in scope.get("query_string", b"") else super().matches(scope)


def web(backends: Backends) -> Guard:
    """The whole app, as an ASGI server runs it."""
    blocks = gradio_app(backends)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await backends.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.router.routes += [
        Page("/", lambda _: served("index.html"), methods=["GET", "HEAD"], middleware=PACKED),
        Route("/config", lambda _: JSONResponse(config(blocks))),
        Route("/page/site.json", lambda _: JSONResponse(site(blocks)), middleware=PACKED),
        Route("/page/{name}", lambda request: served(request.path_params["name"]), middleware=PACKED),
    ]
    options: dict[str, Any] = {"run_history": False, "enable_monitoring": False, "pwa": False}
    options |= {"mcp_server": False, "app_kwargs": {"exception_handlers": dict.fromkeys(UNCLEAR, unclear)}}
    theme = gr.themes.Base(font=["Georgia", "serif"], font_mono=["monospace"])  # no fonts of other hosts
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        ssr_mode=False,
        footer_links=["api"],
        theme=theme,
        head=OPEN_DOCUMENTATION,
        show_error=False,
        **options,
    )
    return Guard(Routes(app))


def config(blocks: gr.Blocks) -> dict[str, Any]:
    """The configuration, which Gradio's clients read first.

    Gradio 6.31.0 puts its own address into it, with http:// if the proxy in front does not give the protocol,
    and @gradio/client 2 then calls that. Without one, a client keeps to the address that it was given.
    """
    return {**blocks.config, "root": "", "username": None}


async def unclear(*_: Any) -> JSONResponse:
    """Replaces FastAPI's own reply, which repeats what was sent, and which Gradio prints."""
    return JSONResponse({"detail": "The request is not understood."}, 422)


def served(name: str) -> Any:
    """A file of the page's folder; 404 for any other name."""
    file = FILES.get(name)
    if not file:
        return JSONResponse({"detail": "Not Found"}, 404)
    return FileResponse(file, media_type=TYPES[file.suffix], headers={"Cache-Control": "no-cache"})


def site(blocks: gr.Blocks) -> dict[str, Any]:
    """What the page has to know: philosophers, first questions, texts, bounds, and the endpoint's inputs."""
    questions = json.loads((HERE / "questions.json").read_text(encoding="utf-8"))
    number, answer = next(item for item in blocks.fns.items() if item[1].api_name == "answer")
    people = {name: {**words, "questions": questions[name]} for name, words in PHILOSOPHERS.items()}
    assert answer.fn
    inputs = [[name, default] for name, _, default, _ in gr.utils.get_function_params(answer.fn)]
    texts = {"people": people, "states": STATES, "notes": NOTES, "errors": ERRORS}
    bounds = {"message": MAX_MESSAGE, "passages": MAX_TEXT}
    return {**texts, "endpoint": {"number": number, "inputs": inputs}, "bounds": bounds}
