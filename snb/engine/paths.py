"""How a decode step runs: by CUDA graphs on a GPU, with shared prefixes on a CPU, or eagerly anywhere.

With few rows a GPU finishes a kernel before Python has launched the next; a graph, recorded at the boot and
replayed, launches all of them at once. On a CPU most time goes into reading memory: `snb.engine.shared` reads
less of the cache, and `snb.engine.packed` has the weights in the layout that the CPU's kernels read.
"""

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from snb.engine.loop import Engine
from snb.engine.packed import pack
from snb.engine.slots import SlotModel, Step
from snb.errors import DeviceUnusable

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


@dataclass(frozen=True)
class Recorded:
    """One graph, for one number of rows and columns, and the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    ids: Tensor
    positions: Tensor
    scores: Tensor


class Graphs:
    """Decode steps recorded for several numbers of rows and columns; a step replays the smallest that fits.

    Raises:
        DeviceUnusable: not on a GPU.
        RuntimeError: a kernel cannot be recorded.
    """

    def __init__(self, model: SlotModel) -> None:
        if model.model.device.type != "cuda":
            raise DeviceUnusable("CUDA graphs need a GPU")
        self._model, self._idle = model, model.cache.context
        self._pool = torch.cuda.graph_pool_handle()
        self.sizes = [
            (rows, columns)
            for rows in doublings(1, model.cache.slots)
            for columns in doublings(max(1, model.cache.context // 4), model.cache.context)
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
        step.graph.replay()
        return step.scores[:number]

    @torch.inference_mode()
    def _record(self, rows: int, columns: int) -> Recorded:
        device = self._model.model.device
        ids = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        positions = torch.full_like(ids, self._idle)
        # In a first run, on another stream, libraries allocate workspaces, which must not be recorded.
        aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self._model.step(ids, positions, columns)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with undone_on_failure(device, self._pool), torch.cuda.graph(graph, pool=self._pool):
            scores = self._model.step(ids, positions, columns)
        return Recorded(graph, ids, positions, scores)


@contextmanager
def undone_on_failure(device: torch.device, pool: tuple[int, int]) -> Iterator[None]:
    """Leaves stream, random generator and allocator as they were when a recording within it fails.

    torch up to 2.13 stops half-way when a recording becomes invalid: its stream stays the current one, the
    generator still expects to be recorded, allocations still go into the pool, and the pool is never released
    (pytorch #171263). Delete this when `torch.cuda.graph` cleans up by itself.
    """
    index, stream = device.index or 0, torch.cuda.current_stream(device)
    generator = torch.cuda.default_generators[index]
    state = generator.graphsafe_get_state()
    generator.graphsafe_set_state(generator.clone_state())  # the recording changes this copy
    try:
        yield
    except BaseException:
        with suppress(RuntimeError):  # the recording had ended properly
            torch._C._cuda_endAllocateToPool(index, pool)
            torch._C._cuda_releasePool(index, pool)
        raise
    finally:
        torch.cuda.set_stream(stream)
        generator.graphsafe_set_state(state)


def doublings(first: int, last: int) -> list[int]:
    """`first` and its doubles below `last`, then `last`."""
    sizes = [first]
    while sizes[-1] < last:
        sizes.append(min(2 * sizes[-1], last))
    return sizes


PATHS: dict[str, Callable[[SlotModel], Step]] = {
    "graphs": Graphs,
    "packed": packed,
    "shared": shared,
    "eager": eager,
}


def candidates(wanted: str, device: str) -> list[str]:
    """The paths to try for a setting, fastest first; the last one runs everywhere."""
    if wanted != "auto":
        return list(dict.fromkeys([wanted, "eager"]))
    return ["graphs", "eager"] if device == "cuda" else ["packed", "shared", "eager"]


def fastest(names: Sequence[str], start: Callable[[str, bool], Engine]) -> Engine:
    """The engine of the first path that starts and passes its self-test.

    Args:
        names: the paths to try, in order.
        start: takes a path and whether it is the last one; it frees its memory before it raises.

    Raises:
        SNBError: the last of them failed too.
    """
    for name in names[:-1]:
        try:
            return _started(name, start, last=False)
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
