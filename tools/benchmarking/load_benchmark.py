"""Wall time and peak anonymous memory of loading: prepared weights, our merge, and PEFT's, as layers grow.

Preparing itself is measured too. Each runs in a process of its own; this one samples its RssAnon, which
leaves mapped files out, so every weight is read once before a load counts as done. The models are the
stand-in cut to fewer layers. PEFT's path quantises the base, attaches the adapter and merges it there, as its
documentation shows; what that costs in quality is not measured here.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file

from snb.weights.checkpoint import INDEX
from tools.command import Fault
from tools.serving import local

LAYERS = (10, 20, 30)
PATHS = ("prepare", "prepared", "ours", "peft")
"""The first is no load: it writes what the second reads."""
MIB = 1024**2
CHILD = ("-m", "tools.benchmarking.one_load")


@dataclass(frozen=True)
class Load:
    """One load, measured."""

    seconds: float
    peak: int
    """Highest RssAnon above what the process had before, in bytes."""
    model: int
    """Bytes of the loaded weights, computed."""
    tensor: int
    """Bytes of the largest tensor in fp32, computed."""
    read: int
    """Bytes of the files of weights that it read."""


def run(precision: str) -> None:
    """Prints one line for each path and number of layers."""
    local.build_standin()
    print(
        f"{'layers':>6} {'path':>8} {'seconds':>8} {'peak MiB':>9} {'bound MiB':>10} {'model MiB':>10} "
        f"{'read MiB':>9}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for layers in LAYERS:
            base, adapter = cut(Path(folder) / str(layers), layers)
            for path in PATHS:
                load = measure(path, base, adapter, precision)
                bound = 1.3 * load.model + load.tensor
                print(
                    f"{layers:>6} {path:>8} {load.seconds:>8.1f} {load.peak / MIB:>9.0f} "
                    f"{bound / MIB:>10.0f} {load.model / MIB:>10.0f} {load.read / MIB:>9.0f}"
                )
    print(
        "bound: 1.3 x the model's bytes and one tensor in fp32, computed; the rest measured on this machine"
    )


def cut(folder: Path, layers: int) -> tuple[Path, Path]:
    """The stand-in's base and adapter with their first `layers` layers."""
    for part in ("base", "adapter"):
        source, target = local.STANDIN / part, folder / part
        target.mkdir(parents=True)
        weight_map: dict[str, str] = {}
        for shard in source.glob("*.safetensors"):
            kept = {name: tensor for name, tensor in load_file(shard).items() if layer_of(name) < layers}
            weight_map |= dict.fromkeys(kept, shard.name)
            if kept:
                save_file(kept, target / shard.name)
        if part == "base":
            (target / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
            shutil.copy(source / "tokenizer.json", target)
        for file in source.glob("*config.json"):
            config = json.loads(file.read_text())
            if "num_hidden_layers" in config:
                config["num_hidden_layers"] = layers
                config.pop("layer_types", None)
            (target / file.name).write_text(json.dumps(config))
    return folder / "base", folder / "adapter"


def layer_of(name: str) -> int:
    """The layer that a tensor belongs to; -1 for what is outside the layers."""
    _, found, rest = name.partition("layers.")
    return int(rest.split(".")[0]) if found else -1


def measure(path: str, base: Path, adapter: Path, precision: str) -> Load:
    """Runs one load in a process of its own and samples its memory until it ends."""
    command = [sys.executable, *CHILD, path, str(base), str(adapter), precision]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    while child.stdout.readline().strip() != "baseline":
        if child.poll() is not None:
            raise Fault(f"{path} failed in {precision}, and wrote the reason above")
    before = peak = anonymous(child.pid)
    child.stdin.write("\n")
    child.stdin.flush()
    while child.poll() is None:
        peak = max(peak, anonymous(child.pid))
        time.sleep(0.002)
    result = json.loads(child.stdout.read().splitlines()[-1])
    return Load(result.pop("seconds"), peak - before, **result)


def anonymous(pid: int) -> int:
    """RssAnon of a process, in bytes; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(lines[0].split()[1]) * 1024 if lines else 0
