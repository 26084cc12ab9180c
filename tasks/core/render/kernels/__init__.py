"""The CPU rasterizer's inner loops, compiled by numba: float32, parallel, no state.

Work is divided among a fixed number of workers (`prange(workers)`), never given to the next free thread, and every sum
over tiles is taken in a fixed order. So the same input gives the same bytes for any number of threads.

The shape of an array is on the line of its parameter; its dtype is float32 unless that line names another. mypy does
not check these modules: numba infers and checks the types of the functions when it compiles them.
"""

import os
from typing import Any

import numba

# numba can take its threads from three libraries, and prefers TBB where the system has it. With Debian 12's TBB
# (2021.8) a process that had trained hung forever at its end, in tbb::finalize. GNU OpenMP is as quick.
_config: Any = numba.config  # makes its attributes at run time
if _config.THREADING_LAYER_PRIORITY == ["tbb", "omp", "workqueue"]:  # numba's default, not a choice of the user
    _config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]

# GNU OpenMP lets waiting threads spin; on a machine with other work, that made training three times as slow
# (docs/training.md). It reads the variable once, when numba loads it for the first parallel kernel, so the variable is
# set here, before any kernel runs. Sleeping instead costs microseconds a kernel.
os.putenv("OMP_WAIT_POLICY", "passive")
