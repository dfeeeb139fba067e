"""A philosopher on an endpoint: what stands behind predict.py."""

import os

# On a CPU, libgomp's workers wait for the next kernel by spinning, by default for so long that any other busy
# process brings a decode step from 0.1 to 1.5 seconds, and not at all under OMP_WAIT_POLICY=PASSIVE, which
# costs 1.6 times the time. So many turns bridge the gap between two kernels and no more (measured on two
# cores, torch 2.13). It is read when torch is loaded, which is after this.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")
