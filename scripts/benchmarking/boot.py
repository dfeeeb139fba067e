"""One boot, watched: its log with times, the memory it took, and an answer. A program; writes JSON."""

import json
import logging
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from snb.request import Request
from snb.service import Service
from snb.settings import Settings

ANSWER = {"user_message": "Que dois-je faire ?", "max_tokens": 64, "min_tokens": 64, "temperature": 0}


class Lines(logging.Handler):
    """Keeps what is logged, with the seconds since the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.began = time.monotonic()
        self.kept: list[tuple[float, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append((round(time.monotonic() - self.began, 1), record.getMessage()))


def watch(settings: Settings) -> dict[str, Any]:
    """Seconds, log, metrics of the second answer, and peak memory in bytes."""
    lines = Lines()
    logging.getLogger("snb").addHandler(lines)
    service = Service(settings)
    seconds, log = time.monotonic() - lines.began, list(lines.kept)
    answers = [answer(service) for _ in range(2)]  # the first pays for what only a first one pays
    return {"seconds": round(seconds, 1), "log": log, "answer": answers[-1], "memory": memory()}


def answer(service: Service) -> dict[str, float | int | str]:
    """The metrics of one answer."""
    metrics: dict[str, float | int | str] = {}
    for _ in service.answer(Request.checked(**ANSWER), metrics.__setitem__):
        pass
    return metrics


def memory() -> dict[str, int]:
    """Bytes. Reserved: by torch, at the peak. In use: of the card now, by whomever. Host: at the peak."""
    host = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if not torch.cuda.is_initialized():
        return host
    free, total = torch.cuda.mem_get_info()
    return {"reserved": torch.cuda.max_memory_reserved(), "in_use": total - free, **host}


if __name__ == "__main__":
    print(json.dumps(watch(Settings.from_environment())), flush=True)
    os._exit(0)  # the decode thread may be inside torch when the interpreter ends, which aborts the process
