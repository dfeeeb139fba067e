"""Runs commands of `scripts/` in this process, since a process of their own takes seconds to start."""

import sys
from importlib import import_module
from typing import Any

import environment
import pytest


def code(name: str, *arguments: str) -> Any:
    """Runs a command; returns its exit code. pytest captures what it prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *arguments])
        try:
            return import_module(environment.module_of(name)).main()
        except SystemExit as ended:
            return ended.code
