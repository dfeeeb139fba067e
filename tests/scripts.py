"""Scripts of `scripts/`, run in this process: a start of their own costs seconds."""

import re
import sys
from importlib import import_module
from typing import Any

import pytest

from snb.settings import ROOT


def code(name: str, *arguments: str) -> Any:
    """How a script ends; what it writes goes where pytest looks for it."""
    [module] = re.findall(r'run\("(.+)"\)', (ROOT / "scripts" / name).read_text(encoding="utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *arguments])
        try:
            return import_module(module).main()
        except SystemExit as ended:
            return ended.code
