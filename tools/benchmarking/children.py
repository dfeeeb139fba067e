"""Programs of their own that a benchmark runs, so that what they load is gone when they end."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.benchmarking.classroom import Answer, Run
from tools.endpoints.endpoint import Failed
from tools.endpoints.started import say

BARE = "generate"
TAIL = 2000
"""Characters that are shown of what a program said before it failed."""


def merge(settings: Mapping[str, str], folder: Path) -> Path:
    """Base and adapter as one model in `folder`, made once."""
    if not (folder / "tokenizer.json").exists():  # written last
        say("merging the weights into one folder …")
        child(["tools.benchmarking.merged", str(folder)], settings)
    return folder


def generate(name: str, inputs: Mapping[str, Any], settings: Mapping[str, str]) -> Run:
    """One answer by plain `generate`, in a process of its own, as a run of one pupil."""
    written = child(["tools.benchmarking.bare_generate"], settings, json.dumps(inputs))
    times = json.loads(written.splitlines()[-1])
    tokens = len(times)
    answer = Answer(0.0, times[-1], inputs["max_tokens"], times, list(range(1, tokens + 1)), tokens)
    return Run(BARE, name, "at once", 1, [answer])


def tiny(folder: Path) -> dict[str, str]:
    """The settings of a random model of two layers, 64 wide, which is made in `folder`."""
    child(["tools.benchmarking.random_weights", str(folder), "--small"], {})
    return {"SNB_BASE_MODEL": str(folder / "base"), "SNB_ADAPTER": "none", "SNB_PREPARED": "none"}


def child(arguments: Sequence[str], settings: Mapping[str, str], given: str = "") -> str:
    """What a Python program writes to stdout. Raises Failed, with the end of what it said, when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        input=given,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Failed(done.stderr[-TAIL:])
    return done.stdout
