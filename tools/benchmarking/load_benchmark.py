"""Wall time and peak anonymous memory of loading in nf4: prepared weights, our merge, and PEFT's.

Preparing itself is measured too. Each runs in a process of its own; this one samples its RssAnon, which
leaves mapped files out, so every weight is read once before a load counts as done. The models have the shape
of SmolLM2-135M and random values. PEFT's path quantises the base, attaches the adapter and merges it there,
as its documentation shows; what that costs in quality is not measured here.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peft import PeftModel
from transformers import Qwen2Config, Qwen2ForCausalLM

from snb.card import Device, Footprint, choose, quantization
from snb.settings import Settings
from snb.weights.adapter import Adapter
from snb.weights.merge import load_merged
from tools.benchmarking import random_weights
from tools.benchmarking.report import show
from tools.command import Fault
from tools.preparing import preparation

LAYERS = (10, 20, 30)
PATHS = ("prepare", "prepared", "ours", "peft")
"""The first is no load: it writes what the second reads."""
PRECISION = "nf4"
SHAPE = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
SHAPE |= {"vocab_size": 49152, "tie_word_embeddings": True}
MIB = 1024**2


def run() -> None:
    """Prints a row for each path and number of layers."""
    rows = []
    for layers in LAYERS:
        with tempfile.TemporaryDirectory() as folder:
            config = random_weights.configuration({**SHAPE, "num_hidden_layers": layers})
            random_weights.make(Path(folder), config)
            for path in PATHS:
                load = measure(path, Path(folder))
                bound = 1.3 * load["model"] + load["tensor"]
                sizes = {"peak_MiB": load["peak"], "bound_MiB": bound, "read_MiB": load["read"]}
                shown = {name: size / MIB for name, size in sizes.items()}
                rows.append({"layers": layers, "path": path, "seconds": load["seconds"], **shown})
    print(show(rows))
    print(
        "bound: 1.3 x the model's bytes and one tensor in fp32, computed; the rest measured on this machine"
    )


def measure(path: str, folder: Path) -> dict[str, float]:
    """One load in a process of its own: seconds; in bytes the peak above what the process had before, the
    model and its largest tensor in fp32, both computed, and the files that it read."""
    command = [sys.executable, "-m", "tools.benchmarking.load_benchmark", path, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout  # noqa: PT018
        while (line := child.stdout.readline()) and line != "baseline\n":
            pass
        before = peak = anonymous(child.pid)
        if line:
            child.stdin.write("\n")
            child.stdin.flush()
        while child.poll() is None:
            peak = max(peak, anonymous(child.pid))
            time.sleep(0.002)
        if child.returncode:
            raise Fault(f"{path} failed, and wrote the reason above")
        measured: dict[str, float] = json.loads(child.stdout.read().splitlines()[-1])
    return {**measured, "peak": peak - before}


def anonymous(pid: int) -> int:
    """RssAnon of a process, in bytes; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return 1024 * sum(map(int, re.findall(r"RssAnon:\s*(\d+)", status)))


def load(path: str, folder: Path) -> None:
    """The child: writes `baseline` when all is imported, waits for a line, loads, and writes JSON."""
    base, adapter, prepared = (folder / name for name in ("base", "adapter", "prepared"))
    device = Device.find("auto")
    choice = choose(Qwen2Config.from_pretrained(base), Settings(precision=PRECISION, slots=1), device)
    options = {"dtype": choice.compute_dtype, "device_map": {"": device.kind}}
    quantized = {**options, "quantization_config": quantization(choice.precision, choice.compute_dtype)}
    recipe = preparation.Recipe.of(Settings(base_model=str(base), adapter=str(adapter)), PRECISION)
    print("baseline", flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    if path == "prepare":
        preparation.prepare(recipe, prepared)
    else:
        if path == "prepared":
            model = load_merged(prepared, None, **options)
        elif path == "ours":
            model = load_merged(base, Adapter.read(adapter), **quantized)
        else:
            model = Qwen2ForCausalLM.from_pretrained(base, **quantized)
            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        for weight in model.state_dict().values():
            weight.max()  # files that are mapped are read only then
    seconds, footprint = time.monotonic() - started, Footprint(recipe.config)
    folders = [prepared] if path == "prepared" else [base, adapter]
    read = sum(file.stat().st_size for folder in folders for file in folder.glob("*.safetensors"))
    sizes = {"model": footprint.weights(PRECISION), "tensor": 4 * footprint.largest, "read": read}
    print(json.dumps({"seconds": seconds, **sizes}))


if __name__ == "__main__":
    load(sys.argv[1], Path(sys.argv[2]))
