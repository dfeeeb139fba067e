"""How the loader of transformers quantises: nf4 by bitsandbytes, int8 and fp8 row by row.

Each weight is quantised after its merge, on its device, while the checkpoint streams in.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import BitsAndBytesConfig, Qwen2ForCausalLM
from transformers.core_model_loading import ConversionOps
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from snb.card import quantised
from snb.engine import rowwise

METHOD = "rowwise"
"""The `quant_method` in config.json of prepared weights in int8 and fp8."""
HELD = {"int8": rowwise.INT8, "fp8": rowwise.FP8}


def quantization(precision: str, compute_dtype: torch.dtype) -> QuantizationConfigMixin | None:
    """The configuration for `from_pretrained`; None for plain floats."""
    if precision in HELD:
        return RowwiseConfig(precision)
    if precision == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            # Without it bitsandbytes computes in fp32, slowly and silently.
            bnb_4bit_compute_dtype=compute_dtype,
        )
    return None


def never_repacked(model: Qwen2ForCausalLM) -> None:
    """Keeps nf4 weights as they were loaded.

    On a CPU with AVX512-BF16 a layer of bitsandbytes 0.50.2 repacks its weights when it is first called: then
    nobody else can read them, it computes in bf16 whatever it was told, and it fails where the number of rows
    is no multiple of 32. Delete this when a layer has an option for it.
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


@register_quantization_config(METHOD)
class RowwiseConfig(QuantizationConfigMixin):
    """The `quantization_config` of int8 and fp8 in config.json.

    Raises:
        ValueError: the weights are held in something other than int8 or fp8.
    """

    def __init__(self, weights: str, quant_method: str = METHOD) -> None:
        if weights not in HELD:
            raise ValueError(f"weights are {weights!r}, not {' or '.join(HELD)}")
        self.weights, self.quant_method = weights, quant_method


@register_quantizer(METHOD)
class RowwiseQuantizer(HfQuantizer):
    """Puts a `Rowwise` in the place of every linear layer but the output embedding."""

    is_trainable = False

    def is_serializable(self) -> bool:
        """Lets transformers save such a model."""
        return True

    def _process_model_before_weight_loading(self, model: Qwen2ForCausalLM, **unused: Any) -> None:
        names = {module: name for name, module in model.named_modules()}
        for linear in quantised(model):
            weight = torch.empty_like(linear.weight, dtype=HELD[self.quantization_config.weights])
            scales = weight.new_empty(linear.out_features, dtype=torch.float32)
            model.set_submodule(names[linear], rowwise.Rowwise(weight, scales, linear.bias))

    def param_needs_quantization(self, model: Qwen2ForCausalLM, param_name: str, **unused: Any) -> bool:
        """Whether a tensor of the model is the weight of a `Rowwise`."""
        module, _, own = param_name.rpartition(".")
        return own == "weight" and isinstance(model.get_submodule(module), rowwise.Rowwise)

    def get_quantize_ops(self) -> "Quantise":
        """The last step of loading such a weight."""
        return Quantise(HELD[self.quantization_config.weights])


class Quantise(ConversionOps):
    """The loader's step from a merged weight to values and scales."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def convert(self, input_dict: dict[str, Any], **unused: Any) -> dict[str, Tensor]:
        """Quantises one weight, given by name, in a list or alone; returns values and scales by name."""
        [(name, weight)] = input_dict.items()
        values, scales = rowwise.quantised(weight[0] if isinstance(weight, list) else weight, self.dtype)
        return {name: values, f"{name.removesuffix('weight')}scales": scales[:, 0]}
