"""Linear layers with a second copy of their fp32 weights, in oneDNN's layout, for decode steps on a CPU.

MKL, which PyTorch calls for fp32, repacks the weights at every call; with few rows that costs as much as the
product. oneDNN takes weights that are packed once. For a single row MKL does not repack, and for many rows
the cost is small, so both use the plain layer.
"""

import torch
from torch import Tensor, nn

from snb.card import FIXED, gib
from snb.errors import DeviceUnusable

FEW = range(2, 33)
"""Rows at which the packed copy is faster: 1.2 to 1.4 times up to 16 rows and 1.1 at 32, on two cores."""


class Packed(nn.Module):
    """A linear layer that uses packed weights when there are few rows."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.plain = plain
        self.blocks = torch.ops.mkldnn._reorder_linear_weight(plain.weight.detach(), max(FEW))

    @property
    def weight(self) -> Tensor:
        """Of the plain layer, fp32 `[out, in]`."""
        return self.plain.weight

    @property
    def bias(self) -> Tensor | None:
        """Of the plain layer, fp32 `[out]`."""
        return self.plain.bias

    def forward(self, x: Tensor) -> Tensor:
        """`[…, in_features]` to `[…, out_features]`, fp32."""
        if x.numel() // x.shape[-1] not in FEW:
            return self.plain(x)  # type: ignore[no-any-return]
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.blocks, self.plain.bias, "none", [], "")
        return product


def pack(model: nn.Module) -> None:
    """Packs the fp32 linear layers of a model; oneDNN or bitsandbytes compute other dtypes already.

    Raises:
        DeviceUnusable: the copies exceed FIXED, the work space that the memory budget allows.
    """
    unpack(model)
    layers = {name: layer for name, layer in model.named_modules() if _packable(layer)}
    copies = sum(layer.weight.nbytes for layer in layers.values())
    if copies > FIXED:
        raise DeviceUnusable(f"packed weights would take {gib(copies)} GiB more; {gib(FIXED)} is allowed")
    for name, layer in layers.items():
        model.set_submodule(name, Packed(layer))


def unpack(model: nn.Module) -> None:
    """Puts the plain layers back."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, Packed):
            model.set_submodule(name, layer.plain)


def _packable(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear and layer.weight.dtype == torch.float32
