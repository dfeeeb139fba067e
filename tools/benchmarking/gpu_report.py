"""Measures on an NVIDIA machine what a CPU cannot show, and writes one report to send back.

scripts/gpu-report                           the model that the settings name; what is absent is downloaded
scripts/gpu-report --random --minutes 9      random weights of the true shape: no hub, and ten minutes will do
scripts/gpu-report --cpu --random            every part on a CPU, with a tiny shape

AS_IS=1 in front takes the packages of this Python, where the pinned ones cannot be installed. In order of
worth: device; boots in bf16 and nf4 with answers, memory, steps, prefill and rounding; the card made as small
as a T4 and as one of 24 GB; the GPU tests; the server; boots in fp16, prepared nf4 and int8; quality. A part
that fails, hangs or does not fit the time is recorded with its reason. After every table report.json and
report.md are rewritten; they name no host, user, folder or token.
"""

import argparse
import math
import os
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tools.benchmarking import report
from tools.benchmarking.inspection import CPU, GPU, PARTS, Inspection
from tools.benchmarking.parts import GRACE, Parts
from tools.machine import has_gpu
from tools.serving import local

MEMORY = Path("/dev/shm")
ROOM = 45 * 10**9
"""Bytes of the 14B, its adapter and prepared nf4."""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, folder = parser.add_argument, {"type": Path, "metavar": "FOLDER"}
    add("--minutes", type=float, default=math.inf, help="when to be done (default: no limit)")
    add("--output", default=Path("report"), **folder, help="default: report")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    add("--cpu", action="store_true", help="without a GPU, with small numbers; the stand-in or --random")
    add("--random", action="store_true", help="weights of the true shape with random values")
    add("--layers", help="of --random (default 48)")
    add("--tokenizer", **folder, help="of --random, with tokenizer.json (default: one is made)")
    add("--weights", **folder, help="keeps those of --random (default: in memory, for this run)")
    return parser


def random_weights(options: argparse.Namespace, folder: Path) -> list[str] | None:
    """The arguments of random_weights.py."""
    if not options.random:
        return None
    given = {"--layers": options.layers, "--tokenizer": options.tokenizer}
    chosen = [str(folder), *(f"{name}={value}" for name, value in given.items() if value)]
    return [*chosen, "--small"] if options.cpu else chosen


def environ(options: argparse.Namespace, weights: Path) -> dict[str, str]:
    """Of every program. Every precision is measured, so base and adapter are merged at each boot."""
    settings = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if options.random:
        settings |= {"SNB_BASE_MODEL": str(weights / "base"), "SNB_ADAPTER": str(weights / "adapter")}
    elif options.cpu:
        settings |= local.settings()
    return {**settings, "SNB_DEVICE": "cpu" if options.cpu else "cuda", "SNB_PREPARED": "none"}


def main() -> int:
    began, options = time.monotonic(), arguments().parse_args()
    if not options.cpu and not has_gpu():
        print("This needs an NVIDIA GPU; --cpu runs what a CPU can.", file=sys.stderr)
        return 1
    command = shlex.join(["scripts/gpu-report", *sys.argv[1:]])
    deadline = began + 60 * options.minutes - GRACE
    parts = Parts(lambda parts: report.keep(parts, options.output, command), deadline)
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    wanted = {*options.parts, "device", "weights"}
    tasks = [task for task in (CPU if options.cpu else GPU) if task.name in wanted]
    with tempfile.TemporaryDirectory(dir=MEMORY if roomy else None) as scratch:
        weights = (options.weights or Path(scratch)).resolve()
        settings, made = environ(options, weights), random_weights(options, weights)
        Inspection(tasks, parts, Path(scratch), settings, made).run()
    print(f"Send back report.md and report.json of {options.output}.")
    return int(any(part.failure for part in parts.done))
