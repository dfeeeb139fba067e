"""The fastest path that passes is taken; one that cannot run or computes wrongly is dropped with a reason."""

import gc
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from snb.engine import compiler
from snb.engine.compiler import lacking
from snb.engine.loop import Engine
from snb.engine.paths import PATHS, candidates, eager, fastest
from snb.engine.slots import SlotCache, SlotModel, Step
from snb.errors import SelfTestFailed
from snb.parameters import Sampling
from snb.self_test import self_test

Start = Callable[[str, bool], Engine]


def cannot_be_recorded(_: SlotModel) -> Step:
    raise RuntimeError("operation not permitted when stream is capturing")


def wrong(model: SlotModel) -> Step:
    return lambda ids, positions, columns: model.step(ids, positions, columns).roll(1, -1)


def dies(_: SlotModel) -> Step:
    def step(ids: Tensor, positions: Tensor, columns: int) -> Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    return step


def living(shape: torch.Size) -> int:
    """Number of tensors of a shape that are still referenced."""
    return sum(type(one) is Tensor and one.shape == shape for one in gc.get_objects())


@pytest.fixture
def start(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> Start:
    """Starts an engine on a path and runs the self-test, as the service does."""
    for path in (cannot_be_recorded, wrong, dies):
        monkeypatch.setitem(PATHS, path.__name__, path)

    def started(name: str, last: bool) -> Engine:
        engine = Engine(model, tokenizer.backend_tokenizer, slots=3, context=256, path=PATHS[name])
        try:
            self_test(engine, list(range(3, 40)), last)
        except BaseException:
            engine.close()
            raise
        return engine

    return started


REASONS = {
    "cannot_be_recorded": "stream is capturing",
    "wrong": "SELF_TEST_FAILED",
    "dies": "illegal memory access",
    "graphs": "CUDA graphs need a GPU",
    "fused": "compute capability 8.0",
}


@pytest.mark.parametrize("name", REASONS)
def test_a_path_that_fails_says_why_and_gives_its_memory_back_to_eager(
    name: str, start: Start, model: Qwen2ForCausalLM, caplog: pytest.LogCaptureFixture
) -> None:
    if name in ("graphs", "fused") and torch.cuda.is_available():
        pytest.skip("here they work")
    shape, alive = SlotCache(model, slots=3, context=256).keys.shape, []

    def counted(path: str, last: bool) -> Engine:
        alive.append(living(shape))
        return start(path, last)

    with caplog.at_level(logging.INFO, "snb"):
        engine = fastest([name, "eager"], counted)
    list(answer := engine.generate([5, 6], Sampling(max_tokens=9, min_tokens=9), seed=0))
    assert answer.finish_reason == "length"
    engine.close()
    [warning] = [line.message for line in caplog.records if line.levelno == logging.WARNING]
    assert REASONS[name] in warning
    assert caplog.messages[-1] == "decode path: eager"
    assert alive[1] == alive[0]


def test_the_first_path_that_passes_is_taken(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "snb.engine.paths"):
        fastest(["eager", "wrong"], start).close()
    assert [line.message for line in caplog.records if line.name == "snb.engine.paths"] == [
        "decode path: eager"
    ]


def test_when_the_last_path_fails_too_the_boot_fails(start: Start) -> None:
    with pytest.raises(SelfTestFailed):
        fastest(["dies", "wrong"], start)


def test_the_paths_of_each_setting_end_with_one_that_runs_everywhere() -> None:
    assert candidates("auto", "cuda") == ["graphs", "eager"]
    assert candidates("auto", "cpu") == ["packed", "shared", "eager"]
    assert candidates("graphs", "cpu") == ["graphs", "eager"]
    assert candidates("fused", "cuda") == ["fused", "graphs", "eager"]
    assert candidates("eager", "cuda") == ["eager"]
    assert PATHS["eager"] is eager


def test_the_fused_step_is_not_tried_without_triton_or_without_a_compiler_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Triton takes CC, or else gcc or clang on PATH."""
    program = tmp_path / "gcc"
    program.touch(0o755)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not list(lacking((8, 0)))
    program.unlink()
    [missing] = lacking((8, 0))
    assert "C compiler" in missing
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    assert len(list(lacking((7, 5)))) == 3


def test_an_engine_that_is_closed_holds_no_tensor_even_while_an_error_holds_the_engine(start: Start) -> None:
    engine = start("eager", True)
    shape = engine.model.cache.keys.shape
    engine.close()
    assert not living(shape)
