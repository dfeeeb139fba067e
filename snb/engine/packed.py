"""Linear layers with a second copy of their fp32 weights, in oneDNN's layout, for decode steps on a CPU.

MKL, which PyTorch calls for fp32, repacks the weights at every call; with few rows that costs as much as the
product. oneDNN takes weights that are packed once. For a single row MKL does not repack, and for many rows
the cost is small, so both use the plain layer.
"""

from typing import Any

import torch
from torch import Tensor, nn

from snb.card import FIXED, gib
from snb.engine.slots import SlotModel
from snb.errors import DeviceUnusable

FEW = range(2, 33)
"""Rows at which the packed copy is faster: 1.2 to 1.4 times up to 16 rows and 1.1 at 32, on two cores."""


class Packed:
    """A linear layer that uses packed weights when there are few rows."""

    def __init__(self, plain: nn.Linear) -> None:
        self.plain = plain
        self.blocks = torch.ops.mkldnn._reorder_linear_weight(plain.weight.detach(), max(FEW))

    def __call__(self, x: Tensor) -> Tensor:
        """`[…, in_features]` to `[…, out_features]`, fp32."""
        if x.numel() // x.shape[-1] not in FEW:
            return self.plain(x)  # type: ignore[no-any-return]
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.blocks, self.plain.bias, "none", [], "")
        return product


def pack(model: SlotModel) -> None:
    """Packs the fp32 linear layers of a model; oneDNN or bitsandbytes compute other dtypes already.

    Raises:
        DeviceUnusable: the copies exceed FIXED, the work space that the memory budget allows.
    """
    places: list[tuple[Any, str]] = [(model, "head")]
    for layer in model.layers:
        for part in (layer.attention, layer.mlp):
            places += [(part.projections, "whole"), (part, "output")]
    places = [place for place in places if _packable(getattr(*place))]
    copies = sum(getattr(*place).weight.nbytes for place in places)
    if copies > FIXED:
        raise DeviceUnusable(f"packed weights would take {gib(copies)} GiB more; {gib(FIXED)} is allowed")
    for place in places:
        setattr(*place, Packed(getattr(*place)))


def _packable(layer: nn.Module | None) -> bool:
    return type(layer) is nn.Linear and layer.weight.dtype == torch.float32
