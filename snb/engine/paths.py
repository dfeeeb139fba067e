"""How a decode step runs: by CUDA graphs on a GPU, with shared prefixes on a CPU, or eagerly anywhere.

With few rows a GPU finishes a kernel before Python has launched the next; a graph, recorded at the boot and
replayed, launches all of them at once, and `snb.engine.fused` has fewer of them. On a CPU most time goes into
reading memory: `snb.engine.shared` reads less of the cache, and `snb.engine.packed` has the weights in the
layout that the CPU's kernels read.
"""

import gc
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from snb.engine.compiler import capability, lacking
from snb.engine.loop import Engine
from snb.engine.packed import pack
from snb.engine.prefills import Prefills
from snb.engine.recording import Record, Recorder, doublings, quarters
from snb.engine.slots import PrefillPass, SlotModel, Step
from snb.errors import DeviceUnusable, EngineStuck

log = logging.getLogger(__name__)


def eager(model: SlotModel) -> Step:
    """PyTorch launches kernel after kernel, and each row reads its own cache; runs everywhere."""
    return model.step


def shared(model: SlotModel) -> Step:
    """As `eager`, but a prefix is read once for all rows that begin with it.

    Raises:
        DeviceUnusable: on a GPU, whose memory cannot hold all attention scores of a long prompt.
    """
    if model.model.device.type != "cpu":
        raise DeviceUnusable("shared prefixes are for the CPU")
    model.sharing = True
    return model.step


def packed(model: SlotModel) -> Step:
    """As `shared`, with the weights packed for few rows.

    Raises:
        DeviceUnusable: on a GPU, or the weights are too large to be held twice.
    """
    step = shared(model)
    pack(model)
    return step


FIXED_ROWS = 32
"""With at most this many slots `fused` records one graph, of all rows, unless the weights are nf4."""


class Recorded(NamedTuple):
    """One graph, for one number of rows and columns, and the tensors that it reads."""

    ids: Tensor
    positions: Tensor
    replay: Callable[[], Tensor]


class Graphs:
    """Decode steps recorded for several numbers of rows and columns; a step replays the smallest that fits.

    Args:
        model: the model whose steps are recorded.
        recorded: the step to record; by default the model's own.
        sizes: rows and columns of each graph; by default enough of both for any step.

    Raises:
        DeviceUnusable: not on a GPU.
        RuntimeError: a kernel cannot be recorded.
    """

    prefill_pass: PrefillPass | None = None
    """Recorded prefill; None if prefill runs eagerly."""
    record: Record | None = None
    """The recorder for the choice of tokens; None if tokens are chosen eagerly."""

    def __init__(
        self, model: SlotModel, recorded: Step | None = None, sizes: Sequence[tuple[int, int]] = ()
    ) -> None:
        if model.model.device.type != "cuda":
            raise DeviceUnusable("CUDA graphs need a GPU")
        self.recorded = recorded or model.step
        """The step that the graphs record, for running it without one."""
        self._device, self._idle = model.model.device, model.cache.context
        self.recorder = Recorder(self._device)
        self.sizes = sizes or [
            (rows, columns)
            for rows in doublings(1, model.cache.slots)
            for columns in quarters(model.cache.context)
        ]
        """Rows and columns of each graph."""
        # The largest first, so that the others reuse the memory of its pool.
        self._steps = {size: self._record(*size) for size in reversed(self.sizes)}

    @torch.inference_mode()
    def __call__(self, ids: Tensor, positions: Tensor, columns: int) -> Tensor:
        """As `SlotModel.step`; the next step overwrites the scores."""
        number = len(ids)
        step = self._steps[min(size for size in self._steps if size[0] >= number and size[1] >= columns)]
        step.ids[:number], step.positions[:number] = ids, positions
        step.positions[number:] = self._idle
        return step.replay()[:number]

    def _record(self, rows: int, columns: int) -> Recorded:
        ids = torch.zeros(rows, 1, dtype=torch.int64, device=self._device)
        positions = torch.full_like(ids, self._idle)
        return Recorded(ids, positions, self.recorder(lambda: self.recorded(ids, positions, columns)))


def fused(model: SlotModel) -> Step:
    """Graphs of `snb.engine.fused`: fewer kernels, and attention that reads no more than each row has.

    Prefill, in the model's own passes, and the choice of tokens are recorded in graphs too.

    Raises:
        DeviceUnusable: the GPU is too old, or Triton or a compiler for it is absent.
    """
    device, slots = model.model.device, model.cache.slots
    if missing := list(lacking(capability(device))):
        raise DeviceUnusable([f"the fused step needs {one}" for one in missing])
    from snb.engine.fused import Fused  # imports Triton, which a CPU does not have

    # Unless weights are nf4, a product reads the same bytes for 1 to 32 rows, so one graph serves them all,
    # and a row's neighbours never change the shapes it is computed in. With nf4 each row takes more time.
    plain = model.layers[0].mlp.projections.whole is not None
    rows = [slots] if plain and slots <= FIXED_ROWS else doublings(1, slots)
    graphs = Graphs(model, Fused(model), [(number, model.cache.context) for number in rows])
    graphs.prefill_pass, graphs.record = Prefills(model, graphs.recorder), graphs.recorder
    return graphs


PATHS: dict[str, Callable[[SlotModel], Step]] = {
    "fused": fused,
    "graphs": Graphs,
    "packed": packed,
    "shared": shared,
    "eager": eager,
}


def candidates(wanted: str, device: str) -> list[str]:
    """The paths to try for a setting, fastest first; the last one runs everywhere."""
    if wanted == "fused":
        return ["fused", "graphs", "eager"]
    if wanted != "auto":
        return list(dict.fromkeys([wanted, "eager"]))
    # Not `fused`, which no card has run yet: after an illegal memory access no other path works either.
    return ["graphs", "eager"] if device == "cuda" else ["packed", "shared", "eager"]


def fastest(names: Sequence[str], start: Callable[[str, bool], Engine]) -> Engine:
    """The engine of the first path that starts and passes its self-test.

    Args:
        names: the paths to try, in order.
        start: takes a path and whether it is the last one; it frees its memory before it raises.

    Raises:
        SNBError: the last path failed too.
        EngineStuck: raised by any path, since the next would wait for ever.
    """
    for name in names[:-1]:
        try:
            return _started(name, start, last=False)
        except EngineStuck:
            raise
        except Exception as error:
            log.warning("decode path %s fails here, the next is tried: %s", name, _reason(error))
        gc.collect()  # a traceback keeps the objects of its frames alive, in cycles
        torch.cuda.empty_cache()
    return _started(names[-1], start, last=True)


def _started(name: str, start: Callable[[str, bool], Engine], last: bool) -> Engine:
    engine = start(name, last)
    log.info("decode path: %s", name)
    return engine


def _reason(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
