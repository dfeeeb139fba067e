"""CUDA graphs: work on the device, recorded once and replayed in one launch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

Record = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""What a `Recorder` does; the identity in its place runs all work eagerly, in the shapes of a recording."""


class Recorder:
    """Records work that one thread replays, one recording at a time: all share the memory of one pool."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._pool = device, torch.cuda.graph_pool_handle()
        # One stream for all recordings, since cuBLAS keeps 8 to 32 MiB for each stream that it ever ran on;
        # and for nothing else: torch 2.13 frees those with the stream's first graph to go (pytorch #193402).
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def __call__(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Returns a function that replays `run` on the same tensors; a result lasts until any next replay.

        Raises:
            RuntimeError: a kernel cannot be recorded.
        """
        # In a first run, on the same stream, libraries allocate workspaces, which must not be recorded.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            run()
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(graph, pool=self._pool, stream=self._stream)
        with undone_on_failure(self._device, self._pool), recording:
            result = run()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


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


def quarters(context: int) -> list[int]:
    """Columns that recorded attention reads: a quarter of the context, a half, and all of it."""
    return doublings(max(1, context // 4), context)
