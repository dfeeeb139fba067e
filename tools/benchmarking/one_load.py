"""One load of weights, or one preparation of them: `python one_load.py PATH BASE ADAPTER PRECISION`.

PATH is one of `load_benchmark.PATHS`. Writes `baseline` when all is imported, waits for a line, loads, and
writes JSON: the seconds that it took; in bytes the model, its largest tensor in fp32, and what was read.
"""

import json
import sys
import time
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from snb.card import Device, Footprint, choose, quantization
from snb.settings import Settings
from snb.weights.adapter import Adapter
from snb.weights.merge import load_merged
from tools.preparing import preparation


def load(path: str, base: Path, adapter: Path, options: dict[str, object]) -> PreTrainedModel:
    """A model, every weight of which has been read: files that are mapped count only then."""
    if path == "prepared":
        model = load_merged(prepared_of(base), None, **{**options, "quantization_config": None})
    elif path == "ours":
        model = load_merged(base, Adapter.read(adapter), **options)
    else:
        model = Qwen2ForCausalLM.from_pretrained(base, **options)
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    for weight in model.state_dict().values():
        weight.max()
    return model


def prepared_of(base: Path) -> Path:
    """Where the prepared weights of a base are."""
    return base.with_name("prepared")


def main(path: str, base: Path, adapter: Path, precision: str) -> None:
    """See above."""
    device = Device.find("auto")
    choice = choose(Qwen2Config.from_pretrained(base), Settings(precision=precision, slots=1), device)
    options = {"dtype": choice.compute_dtype, "device_map": {"": device.kind}}
    options["quantization_config"] = quantization(choice.precision, choice.compute_dtype)
    recipe = preparation.Recipe.of(Settings(base_model=str(base), adapter=str(adapter)), precision)
    print("baseline", flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    if path == "prepare":
        preparation.prepare(recipe, prepared_of(base))
    else:
        model = load(path, base, adapter, options)
    seconds = time.monotonic() - started
    footprint = Footprint(recipe.config if path == "prepare" else model.config)
    folders = [prepared_of(base)] if path == "prepared" else [base, adapter]
    read = sum(file.stat().st_size for folder in folders for file in folder.glob("*.safetensors"))
    sizes = {"model": footprint.weights(precision), "tensor": 4 * footprint.largest, "read": read}
    print(json.dumps({"seconds": seconds, **sizes}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
