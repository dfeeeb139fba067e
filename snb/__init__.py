"""What predict.py calls: loading, the engine, and the service that answers requests."""

import os

# On a CPU, libgomp's threads spin while they wait for the next kernel. By default they spin so long that any
# other busy process slows a decode step from 0.1 to 1.5 s; with OMP_WAIT_POLICY=PASSIVE they do not spin, and
# a step takes 1.6 times as long. This many turns bridge the gap between two kernels and no more (measured on
# two cores, torch 2.13). libgomp reads it when torch is loaded, which is after this line.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")
