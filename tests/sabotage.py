"""Imported by a server's `predict.py`: its decode loop fails when a file says so, as it may on a bad day."""

import functools
import os
import threading
from pathlib import Path

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from snb import cancel
from snb.engine.loop import Engine

FAULTS = Path(os.environ["FAULTS"])
"""A file `killed` or `stalled` in this folder strikes at the next forward pass, and says what it raises."""
STALL = 2.0
"""Seconds; the engine's own limit would make a test wait for a minute."""


def strike(module: nn.Module, _: object) -> None:
    """Raises in the engine's thread, or never returns to it."""
    if not isinstance(module, nn.Embedding):
        return
    if (FAULTS / "killed").exists():
        raise RuntimeError((FAULTS / "killed").read_text())
    if (FAULTS / "stalled").exists():
        threading.Event().wait()


register_module_forward_pre_hook(strike)
Engine.__init__ = functools.partialmethod(Engine.__init__, stall=STALL)  # type: ignore[assignment]
cancel.KNOWN = ()  # type: ignore[assignment]
