"""The fused step against plain PyTorch: in Triton's interpreter on a CPU, compiled on a GPU.

The interpreter of Triton 3.6 to 3.9 does no arithmetic in bf16 and cuts its bits off where they should be
rounded, so on a CPU fp16 stands for 16 bits.
"""

import os
from collections.abc import Sequence

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
os.environ["TRITON_INTERPRET"] = str(int(DEVICE == "cpu"))  # read when Triton is imported
pytest.importorskip("triton", reason="Triton is built for Linux on x86-64 alone")

from torch import Tensor  # noqa: E402

from snb.engine import kernels  # noqa: E402
from snb.engine.fused import Fused  # noqa: E402
from snb.engine.loop import Engine  # noqa: E402
from snb.engine.slots import SlotModel, Step  # noqa: E402
from snb.self_test import exact, rounding, self_test  # noqa: E402
from tests.tiny import tiny_model  # noqa: E402

HALF = torch.float16 if DEVICE == "cpu" else torch.bfloat16
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=str)
CONTEXT = 300
POSITIONS = [0, 127, 128, 255, 256, 299, CONTEXT]
"""A row of one token, rows that end on both sides of a split's boundary, a full row, and an idle one."""
