"""The fused step against plain PyTorch: in Triton's interpreter on a CPU, compiled on a GPU.

The interpreter of Triton 3.6 to 3.9 does no arithmetic in bf16 and truncates where it should round, so on a
CPU the tests use fp16 for 16 bits.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from snb.engine.loop import Engine
from snb.engine.rowwise import FP8, Rowwise, quantised
from snb.engine.slots import SlotModel
from snb.errors import SelfTestFailed
from snb.self_test import rounding, self_test
from snb.settings import ROOT
from tests.tiny import tiny_model

pytest.importorskip("triton", reason="Triton is built for Linux on x86-64 alone")
from snb.engine import kernels
from snb.engine.fused import Fused
from snb.engine.kernels import Quantised

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF = torch.float16 if DEVICE == "cpu" else torch.bfloat16
fp8_here = DEVICE == "cpu" or torch.cuda.get_device_capability() >= (8, 9)
where_fp8_is = pytest.mark.skipif(not fp8_here, reason="this card has no fp8")
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=str)
CONTEXT = 300
POSITIONS = [0, 127, 128, 299, CONTEXT]
"""A row of one token, rows that end on both sides of a split's boundary, a full row, and an idle one."""
assert kernels.SHORTEST == 128


def normal(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, device=DEVICE).to(dtype)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def near(own: Any, plain: Tensor) -> bool:
    """Whether they differ by at most a few roundings of the largest number in the row."""
    largest = plain.float().abs().amax(-1, keepdim=True)
    few = 2 if plain.dtype == HALF else 16
    return bool(((own.float() - plain.float()).abs() <= few * torch.finfo(plain.dtype).eps * largest).all())


@each_dtype
@pytest.mark.parametrize("width", [64, 100])
def test_adding_and_norm_are_those_of_torch(width: int, dtype: torch.dtype) -> None:
    states, added = (normal(7, 1, width, dtype=dtype) for _ in range(2))
    weight, own, plain = normal(width, dtype=dtype), states.clone(), states.clone()
    normed = kernels.add_norm(own, added, weight, 1e-6)
    assert near(normed, kernels.plain_add_norm(plain, added, weight, 1e-6))
    assert torch.equal(own, plain)


@each_dtype
@pytest.mark.parametrize("width", [7, kernels.BLOCK, kernels.BLOCK + 1])
def test_gates_are_those_of_torch(width: int, dtype: torch.dtype) -> None:
    both = normal(3, 1, 2 * width, dtype=dtype)
    assert near(kernels.gated(both), kernels.plain_gated(both))


@where_fp8_is
@pytest.mark.parametrize("width", [100, kernels.BLOCK + 1])
def test_norms_and_gates_in_fp8_are_those_of_rowwise_products(width: int) -> None:
    """Except where the interpreter does not carry into the exponent, and below e4m3's normal numbers."""
    states, both = normal(3, 1, width, dtype=HALF), normal(3, 1, 2 * width, dtype=HALF)
    states[0] = both[0] = 0
    how = states, states[1, 0], 1e-6
    for own, plain in (
        (kernels.gated(both, fp8=True), kernels.gated(both)),
        (kernels.add_norm(states.clone(), *how, fp8=True), kernels.add_norm(states.clone(), *how)),
    ):
        assert isinstance(own, Quantised)
        assert isinstance(plain, Tensor)
        values, scales = quantised(plain, FP8)
        assert torch.allclose(own.scales, scales, rtol=1e-6, atol=0)
        numbers = values.float()
        sure = (numbers.frexp().mantissa.abs() != 0.5) & ((numbers == 0) | (numbers.abs() >= 2**-6))
        assert sure.float().mean() > 0.8
        assert (own.values.float() == numbers)[sure].float().mean() > 0.99  # a GPU may divide less exactly
        assert not own.cpu()[0].any()


class Heads:
    """Random queries, keys and values over a filled cache, with a row at each of POSITIONS."""

    def __init__(self, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype) -> None:
        rows = len(POSITIONS)
        self.positions = torch.tensor(POSITIONS, device=DEVICE)[:, None]
        self.projected = normal(rows, 1, (heads + 2 * kv_heads) * head_dim, dtype=dtype)
        self.queries = normal(rows, heads, 1, head_dim, dtype=dtype)
        self.angles = [normal(CONTEXT + 1, head_dim, dtype=dtype) for _ in range(2)]
        shape = rows + 1, kv_heads, CONTEXT + 1, head_dim
        self.keys, self.values = (normal(*shape, dtype=dtype) for _ in range(2))


each_grouping = pytest.mark.parametrize("heads", [(10, 2, 16), (7, 1, 16), (17, 1, 16)], ids=str)


@each_dtype
@each_grouping
def test_rotation_and_the_cache_are_those_of_torch_bit_for_bit(
    heads: tuple[int, int, int], dtype: torch.dtype
) -> None:
    """The self-test requires it: it compares the cache with what PyTorch's kernels write."""
    given = Heads(*heads, dtype)
    stores = [given.keys, given.values]
    own, plain = ([store.clone() for store in stores] for _ in range(2))
    how = given.projected, given.angles, given.positions
    queries = kernels.rotate_and_store(*how, *own)
    assert torch.equal(queries, kernels.plain_rotate_and_store(*how, *plain))
    assert all(map(torch.equal, own, plain))
    assert not torch.equal(own[0], given.keys)


# The interpreter warns about NaN, even if none is stored.
@pytest.mark.filterwarnings("error::RuntimeWarning")
@each_dtype
@each_grouping
def test_attention_reads_each_row_to_its_position_as_torch_does(
    heads: tuple[int, int, int], dtype: torch.dtype
) -> None:
    given = Heads(*heads, dtype)
    for row, position in enumerate(POSITIONS[:-1]):  # leftovers of the row's former owner
        given.keys[row, :, position + 1 :] = given.values[row, :, position + 1 :] = torch.nan
    given.keys[-2:] = given.values[-2:] = torch.nan  # an idle row, and the spare row after them
    how = given.queries, given.keys, given.values, given.positions
    result = kernels.attend(*how)
    assert near(result, kernels.plain_attend(*how))
    assert not result[-1].any()


@pytest.mark.parametrize("heads", [(7, 1, 16)], ids=str)
def test_a_row_has_the_same_bits_alone_and_among_others(heads: tuple[int, int, int]) -> None:
    """In all these kernels; in matrix products it depends on cuBLAS."""
    given = Heads(*heads, HALF)
    states, both = normal(len(POSITIONS), 1, 200, dtype=HALF), normal(len(POSITIONS), 1, 400, dtype=HALF)

    def run(rows: slice) -> list[Any]:
        keys, values, positions = given.keys[rows].clone(), given.values[rows].clone(), given.positions[rows]
        queries = kernels.rotate_and_store(given.projected[rows], given.angles, positions, keys, values)
        mixed = kernels.attend(queries, keys, values, positions)
        normed = kernels.add_norm(states[rows].clone(), states[rows], states[0, 0], 1e-6)
        return [queries, keys, values, mixed, normed, kernels.gated(both[rows])]

    together = run(slice(len(POSITIONS)))
    for row in range(len(POSITIONS)):
        alone = run(slice(row, row + 1))
        assert all(torch.equal(one[0], all_[row]) for one, all_ in zip(alone, together, strict=True))


def qwen(**sizes: int) -> Qwen2ForCausalLM:
    """A tiny model whose norms have weights."""
    model = tiny_model(**sizes)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.normal_(1.0, 0.2)
    return model.to(DEVICE)


@each_dtype
@pytest.mark.parametrize("sizes", [{}, {"hidden_size": 160, "num_attention_heads": 10}], ids=str)
def test_the_step_is_that_of_the_model_at_any_position_in_rows_that_moved_beside_an_idle_one(
    sizes: dict[str, int], dtype: torch.dtype
) -> None:
    """Both are compared with fp64."""
    lengths, scores = [128, 5, 129], {}
    ids = [torch.randint(3, 390, (length,)).tolist() for length in lengths]
    last = torch.tensor([[7], [8], [9], [0]], device=DEVICE)
    positions = torch.tensor([[129], [128], [5], [150]], device=DEVICE)
    for kind, how in (("exact", torch.float64), ("plain", dtype), ("fused", dtype)):
        model = SlotModel(qwen(**sizes).to(how), slots=5, context=150)
        model.prefill([0, 2, 4], ids, [0, 0, 0])
        model.cache.move(0, 1, 128)
        model.cache.move(4, 0, 129)
        step = Fused(model) if kind == "fused" else model.step
        scores[kind] = step(last, positions, 150)[:3].double()
        scores[kind] = step(last + 1, positions + torch.tensor([[1], [1], [1], [0]], device=DEVICE), 150)[:3]
    own, plain = ((scores[kind] - scores["exact"]).norm(dim=-1) for kind in ("fused", "plain"))
    assert (own <= rounding.FACTOR * plain.max()).all()


class Replayed:
    """Does without a GPU what `Graphs` does with the fused step."""

    def __init__(self, model: SlotModel) -> None:
        self.recorded, self.sizes = Fused(model), [(model.cache.slots, model.cache.context)]

    def __call__(self, ids: Tensor, positions: Tensor, columns: int) -> Tensor:
        [(rows, context)] = self.sizes
        more = (0, 0, 0, rows - len(ids))
        return self.recorded(pad(ids, more), pad(positions, more, value=context), columns)[: len(ids)]


Doubts = Callable[[Qwen2ForCausalLM], list[str]]


@pytest.fixture
def doubts(tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> Doubts:
    """Returns the self-test's doubts of the fused step, at fewer positions, as if there were another path."""
    monkeypatch.setattr(rounding, "POSITIONS", 24)

    def run(model: Qwen2ForCausalLM) -> list[str]:
        engine = Engine(model, tokenizer.backend_tokenizer, slots=2, context=64, path=Replayed)
        try:
            return self_test(engine, list(range(3, 40)), last=False).of("doubt")
        finally:
            engine.close()

    return run


SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "hidden_size": 32}


@pytest.mark.slow  # the interpreter takes milliseconds for each block, and there are thousands
def test_the_self_test_passes_the_fused_step(doubts: Doubts) -> None:
    assert not doubts(qwen(**SMALL).to(HALF))


@where_fp8_is
@pytest.mark.slow  # as above
def test_the_self_test_passes_the_fused_step_in_fp8(doubts: Doubts, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch quantises here, since the interpreter makes one number in forty half as large as it is."""
    for name in ("add_norm", "gated"):
        monkeypatch.setattr(kernels, name, by_torch(getattr(kernels, name)))
    model = qwen(**SMALL).to(HALF)
    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, own in list(part.named_children()):
                if isinstance(own, torch.nn.Linear):
                    values, scales = quantised(own.weight.detach(), FP8)
                    setattr(part, name, Rowwise(values, scales[:, 0].contiguous(), own.bias))
    assert not doubts(model)


def by_torch(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel, with PyTorch quantising its results."""

    def run(*given: Any) -> Any:
        *inputs, fp8 = given
        plain = kernel(*inputs)
        return Quantised(*quantised(plain, FP8), plain.dtype) if fp8 else plain

    return run


FAULTY: dict[str, Callable[[Any], Any]] = {
    "attend": lambda whole: lambda *given: whole(*given[:3], (given[3] - 1).clamp(min=0)),
    "add_norm": lambda whole: lambda states, *given: whole(states.clone(), *given),
    "rotate_and_store": lambda whole: lambda heads, angles, at, *to: whole(heads, angles[::-1], at, *to),
}


@pytest.mark.slow  # as above
@pytest.mark.parametrize("kernel", FAULTY)
def test_the_self_test_refuses_a_kernel_that_is_wrong(
    kernel: str, doubts: Doubts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, kernel, FAULTY[kernel](getattr(kernels, kernel)))
    with pytest.raises(SelfTestFailed):
        doubts(qwen(**SMALL))


@pytest.mark.slow  # runs a compiler sixteen times
def test_every_kernel_compiles_for_the_oldest_card_and_for_hopper_and_fits_the_least_shared_memory(
    tmp_path: Path,
) -> None:
    """A block may have 99 KiB on compute capability 8.6 and 8.9, and more on 8.0 and 9.0."""
    how = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.compiling", "80", "90"]
    output = subprocess.run(command, env=how, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in output.splitlines()]
    assert len(lines) == 7 + 9
    assert all(int(shared) <= 99 * 1024 for *_, shared in lines)
