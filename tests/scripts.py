"""Runs commands of `scripts/` in this process, since a process of their own takes seconds to start."""

import re
import sys
from importlib import import_module
from typing import Any

import pytest

from snb.settings import ROOT


def code(name: str, *arguments: str) -> Any:
    """Runs a script; returns its exit code. pytest captures what it prints."""
    [module] = re.findall(r'run\("(.+)"\)', (ROOT / "scripts" / name).read_text(encoding="utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *arguments])
        try:
            return import_module(module).main()
        except SystemExit as ended:
            return ended.code
