import os

from tools.machine import has_gpu

# Set before anything imports Triton, which reads it then; bitsandbytes imports Triton.
os.environ.setdefault("TRITON_INTERPRET", str(int(not has_gpu())))
