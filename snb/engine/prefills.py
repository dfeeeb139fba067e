"""Prefill in a few fixed shapes, so that CUDA graphs can record it.

On a fast card, launching a chunk's kernels takes longer than their work: 42 to 51 ms for 64 to 512 tokens, of
which 17 are arithmetic at 512 (measured on an H200, 2026-11-26).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from snb.card import PREFILL_TOKENS
from snb.engine.recording import Record, doublings, quarters
from snb.engine.slots import ALIGNMENT, SlotModel


class Inputs(NamedTuple):
    """What a recorded pass reads, as `SlotModel.prefill_pass` names them."""

    rows: Tensor
    ids: Tensor
    positions: Tensor
    last: Tensor


class Prefills:
    """Prefill of 64, 128, … tokens of one prompt, or of as many prompts as make a chunk.

    Smaller inputs are padded, with tokens for the column past the context and with rows of only such tokens.

    Args:
        model: the model whose cache the passes write to.
        record: records each pass.
    """

    def __init__(self, model: SlotModel, record: Record) -> None:
        self._model, self._idle, most = model, model.cache.context, min(PREFILL_TOKENS, model.cache.context)
        self._widths = doublings(min(ALIGNMENT, most), most)
        self.sizes = [
            (rows, width, columns)
            for width in self._widths
            for rows in sorted({1, min(most // width, model.cache.slots)})
            for columns in quarters(model.cache.context)
        ]
        """Rows, tokens per row and columns of each recorded pass."""
        # The largest first, so that the others reuse the memory of its pool.
        self._passes = {size: self._pass(*size, record) for size in reversed(self.sizes)}

    @torch.inference_mode()
    def __call__(self, rows: Tensor, ids: Tensor, positions: Tensor, last: Tensor, columns: int) -> Tensor:
        """As `SlotModel.prefill_pass`."""
        inputs = Inputs(rows, ids, positions, last)
        parts = zip(*(torch.split(one, self._together(ids.shape[1])) for one in inputs), strict=True)
        return torch.cat([self._replay(Inputs(*part), columns) for part in parts])

    def _together(self, tokens: int) -> int:
        """How many rows one pass takes, with this many tokens each."""
        return max(rows for rows, width, _ in self.sizes if width == self._width(tokens))

    def _width(self, tokens: int) -> int:
        return next(width for width in self._widths if width >= tokens)

    def _replay(self, given: Inputs, columns: int) -> Tensor:
        number, tokens = given.ids.shape
        width = self._width(tokens)
        fits = (size for size in self.sizes if size[0] >= number and size[1] == width and size[2] >= columns)
        inputs, replay = self._passes[min(fits)]
        inputs.positions.fill_(self._idle)
        inputs.last[number:] = 0
        inputs.rows[:number], inputs.last[:number] = given.rows, given.last
        inputs.ids[:number, :tokens], inputs.positions[:number, :tokens] = given.ids, given.positions
        return replay()[:number].clone()

    @torch.inference_mode()
    def _pass(
        self, rows: int, width: int, columns: int, record: Record
    ) -> tuple[Inputs, Callable[[], Tensor]]:
        ids = torch.zeros(rows, width, dtype=torch.int64, device=self._model.model.device)
        inputs = Inputs(ids[:, 0].clone(), ids, torch.full_like(ids, self._idle), ids[:, 0].clone())
        return inputs, record(lambda: self._model.prefill_pass(*inputs, columns))
