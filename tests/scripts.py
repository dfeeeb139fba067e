"""Scripts of `scripts/`, run in this process: a start of their own costs seconds."""

import sys
from importlib import import_module
from typing import Any

import environment
import pytest


def code(name: str, *arguments: str) -> Any:
    """How a script ends; what it writes goes where pytest looks for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *arguments])
        try:
            return import_module(environment.module_of(name)).main()
        except SystemExit as ended:
            return ended.code
