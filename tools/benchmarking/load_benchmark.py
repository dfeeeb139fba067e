"""Wall time and peak anonymous memory of loading: prepared weights, our merge, and PEFT's, as layers grow.

Preparing itself is measured too. Each runs in a process of its own; this one samples its RssAnon, which
leaves mapped files out, so every weight is read once before a load counts as done. The models are the
stand-in cut to fewer layers. PEFT's path quantises the base, attaches the adapter and merges it there, as its
documentation shows; what that costs in quality is not measured here.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from snb.card import Device, Footprint, choose, quantization
from snb.settings import Settings
from snb.weights.adapter import Adapter
from snb.weights.merge import load_merged
from tools.command import Fault
from tools.preparing import preparation
from tools.serving import local

LAYERS = (10, 20, 30)
PATHS = ("prepare", "prepared", "ours", "peft")
"""The first is no load: it writes what the second reads."""
MIB = 1024**2


def run(precision: str) -> None:
    """Prints one line for each path and number of layers."""
    local.build_standin()
    row = "{:>6} {:>8} {:>8} {:>9} {:>10} {:>10} {:>9}"
    print(row.format("layers", "path", "seconds", "peak MiB", "bound MiB", "model MiB", "read MiB"))
    with tempfile.TemporaryDirectory() as folder:
        for layers in LAYERS:
            base, adapter = cut(Path(folder) / str(layers), layers)
            for path in PATHS:
                load = measure(path, base, adapter, precision)
                sizes = load["peak"], 1.3 * load["model"] + load["tensor"], load["model"], load["read"]
                print(row.format(layers, path, f"{load['seconds']:.1f}", *(f"{n / MIB:.0f}" for n in sizes)))
    print(
        "bound: 1.3 x the model's bytes and one tensor in fp32, computed; the rest measured on this machine"
    )


def cut(folder: Path, layers: int) -> tuple[Path, Path]:
    """The stand-in's base and adapter with their first `layers` layers."""
    base, adapter = folder / "base", folder / "adapter"
    model = Qwen2ForCausalLM.from_pretrained(local.STANDIN / "base")
    model.model.layers, model.config.num_hidden_layers = model.model.layers[:layers], layers
    model.config.layer_types = model.config.layer_types[:layers]
    model.save_pretrained(base)
    for file in (local.STANDIN / "base").glob("tokenizer*.json"):
        shutil.copy(file, base)
    shutil.copytree(local.STANDIN / "adapter", adapter)
    weights = adapter / "adapter_model.safetensors"
    tensors = {
        name: (int(re.findall(r"layers\.(\d+)", name)[0]), at) for name, at in load_file(weights).items()
    }
    save_file({name: tensor for name, (layer, tensor) in tensors.items() if layer < layers}, weights)
    return base, adapter


def measure(path: str, base: Path, adapter: Path, precision: str) -> dict[str, float]:
    """One load in a process of its own: seconds; in bytes the peak above what the process had before, the
    model and its largest tensor in fp32, both computed, and the files that it read."""
    command = [
        sys.executable,
        "-m",
        "tools.benchmarking.load_benchmark",
        path,
        str(base),
        str(adapter),
        precision,
    ]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin and child.stdout  # noqa: PT018
    while child.stdout.readline().strip() != "baseline":
        if child.poll() is not None:
            raise Fault(f"{path} failed in {precision}, and wrote the reason above")
    before = peak = anonymous(child.pid)
    child.stdin.write("\n")
    child.stdin.flush()
    while child.poll() is None:
        peak = max(peak, anonymous(child.pid))
        time.sleep(0.002)
    measured: dict[str, float] = json.loads(child.stdout.read().splitlines()[-1])
    return {**measured, "peak": peak - before}


def anonymous(pid: int) -> int:
    """RssAnon of a process, in bytes; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return 1024 * sum(map(int, re.findall(r"RssAnon:\s*(\d+)", status)))


def load(path: str, base: Path, adapter: Path, precision: str) -> None:
    """The child: writes `baseline` when all is imported, waits for a line, loads, and writes JSON."""
    device, prepared = Device.find("auto"), base.with_name("prepared")
    choice = choose(Qwen2Config.from_pretrained(base), Settings(precision=precision, slots=1), device)
    options = {"dtype": choice.compute_dtype, "device_map": {"": device.kind}}
    quantized = {**options, "quantization_config": quantization(choice.precision, choice.compute_dtype)}
    recipe = preparation.Recipe.of(Settings(base_model=str(base), adapter=str(adapter)), precision)
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
    sizes = {"model": footprint.weights(precision), "tensor": 4 * footprint.largest, "read": read}
    print(json.dumps({"seconds": seconds, **sizes}))


if __name__ == "__main__":
    load(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
