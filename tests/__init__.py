import os

from tools.machine import has_gpu

# Triton reads this as soon as anything imports it, and bitsandbytes does.
os.environ.setdefault("TRITON_INTERPRET", str(int(not has_gpu())))
