"""Makes a card small: a process that holds all of its memory but so much, for as long as it is wanted."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tools.endpoints.endpoint import Failed

PROGRAM = """
import sys, torch
spare = torch.cuda.mem_get_info()[0] - int(float(sys.argv[1]) * 2**30)
held = torch.empty(spare, dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()
"""
"""Ends when its stdin closes, so also with whoever started it."""


@contextmanager
def ballast(gib: float) -> Iterator[None]:
    """Leaves `gib` GiB free on the card. Raises Failed where less is free already."""
    command = [sys.executable, "-c", PROGRAM, str(gib)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        if not holder.stdout.readline():
            raise Failed(f"the card has less than {gib} GiB free")
        yield
