"""Random weights of the true shape, for a machine without a hub: a base and a LoRA on it.

They know no language, but shapes, memory, times and rounding are real. The base has the shape of
Qwen2.5-14B-Instruct, 29.5 GB, and the adapter rank 16 on all projections. Run with `FOLDER [--small]`.
"""

import json
import shutil
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from snb.philosophers import names, persona
from snb.weights.checkpoint import INDEX
from tools.benchmarking.bounds import SIZES

SHARD, WRITERS = 72, 4
"""Tensors per file, those of six layers; and files written at once, each 5 GB in memory."""
RANK = 16
TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
RESERVED = 421
"""Rows of Qwen's embedding from the first of TOKENS on."""
LEARNT = 1000
"""Tokens that the tokenizer learns from the personas, which gives them about as many tokens as the real
tokenizer does; the rest of the vocabulary is filler."""
SMALL = {"hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 4, "num_key_value_heads": 2}
SMALL |= {"num_hidden_layers": 2, "vocab_size": LEARNT + RESERVED}
"""Sizes that a CPU runs in no time."""
Shapes = Mapping[str, torch.Size]


def configuration(changes: Mapping[str, int]) -> Qwen2Config:
    """The configuration of Qwen2.5-14B-Instruct, with `changes` to SIZES."""
    sizes: dict[str, Any] = {**SIZES, **changes, "architectures": ["Qwen2ForCausalLM"], "dtype": "bfloat16"}
    end = sizes["vocab_size"] - RESERVED
    ends = {"bos_token_id": end, "pad_token_id": end, "eos_token_id": [end + 2, end]}
    return Qwen2Config(**sizes, **ends, rope_parameters={"rope_type": "default", "rope_theta": 1e6})


def make(folder: Path, config: Qwen2Config) -> None:
    """Writes `base` and `adapter` below `folder`. Raises OSError if the disk is too small."""
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in Qwen2ForCausalLM(config).named_parameters()}
    needed, free = 2 * sum(shape.numel() for shape in shapes.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"the weights take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} are free: set TMPDIR")
    base, adapter = folder / "base", folder / "adapter"
    base.mkdir()
    adapter.mkdir()
    config.save_pretrained(base)
    GenerationConfig.from_model_config(config).save_pretrained(base)
    write_tokenizer(base, config.vocab_size - RESERVED)
    write_base(base, shapes, 0.02 / (2 * config.num_hidden_layers) ** 0.5)
    write_adapter(adapter, {name: shape for name, shape in shapes.items() if name.endswith("proj.weight")})


def write_tokenizer(base: Path, size: int) -> None:
    """Writes a tokenizer whose special tokens follow a vocabulary of `size`, and so have Qwen's ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=LEARNT, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(map(persona, names()), trainer)
    learnt = json.loads(tokenizer.to_str())
    vocabulary = learnt["model"]["vocab"]
    vocabulary |= {f"Ġmot{number}": number for number in range(len(vocabulary), size)}
    tokenizer = Tokenizer.from_str(json.dumps(learnt))
    tokenizer.add_special_tokens(list(TOKENS))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=TOKENS[2]).save_pretrained(base)


def write_base(base: Path, shapes: Shapes, residual: float) -> None:
    """Writes the base, file by file. `residual` is the deviation of weights that feed the residual stream."""
    spread = {"bias": 0.1, "o_proj.weight": residual, "down_proj.weight": residual, "lm_head.weight": 0.05}
    spread |= {"norm.weight": 0.0, "": 0.02}  # the last is for all others
    names = list(shapes)
    weight_map = {name: f"model-{at // SHARD:05}.safetensors" for at, name in enumerate(names)}

    def write(start: int) -> None:
        tensors = {}
        for name in names[start : start + SHARD]:
            deviation = next(value for end, value in spread.items() if name.endswith(end))
            tensors[name] = normal(shapes[name], deviation, float("norm" in name))
        save_file(tensors, base / weight_map[names[start]], {"format": "pt"})

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(0, len(names), SHARD)))  # raises what a writer raised
    (base / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_adapter(folder: Path, shapes: Shapes) -> None:
    tensors = {}
    for name, (outputs, inputs) in shapes.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{stem}.lora_A.weight"] = normal(torch.Size((RANK, inputs)), inputs**-0.5)
        tensors[f"{stem}.lora_B.weight"] = normal(torch.Size((outputs, RANK)), 0.01)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    config: dict[str, Any] = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none"}
    config |= {"r": RANK, "lora_alpha": 2 * RANK}
    config["target_modules"] = sorted({name.split(".")[-2] for name in shapes})
    (folder / "adapter_config.json").write_text(json.dumps(config))


def normal(shape: torch.Size, deviation: float, mean: float = 0.0) -> Tensor:
    """A normally distributed bf16 tensor on the CPU, made on a GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(mean, deviation).cpu()


if __name__ == "__main__":
    began, folder = time.monotonic(), Path(sys.argv[1])
    try:
        make(folder, configuration(SMALL if "--small" in sys.argv else {}))
    except OSError as error:
        sys.exit(str(error))
    size = sum(file.stat().st_size for file in folder.glob("*/*.safetensors"))
    print(json.dumps({"weights": [{"gb": size / 1e9, "seconds": time.monotonic() - began}]}))
