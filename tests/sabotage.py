"""Imported by a server's `predict.py`: its decode loop dies when a file says so, as it may on a bad day."""

import os
from pathlib import Path

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from snb import cancel

FAULT = Path(os.environ["FAULT"])
"""A file that strikes at the next forward pass, which raises what it holds."""


def strike(module: nn.Module, _: object) -> None:
    """Raises in the engine's thread."""
    if isinstance(module, nn.Embedding) and FAULT.exists():
        raise RuntimeError(FAULT.read_text())


register_module_forward_pre_hook(strike)
cancel.KNOWN = ()  # type: ignore[assignment]
