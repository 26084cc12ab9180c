"""The CPU rasterizer's inner loops, compiled by numba: float32, parallel, no state.

Work is dealt to a fixed number of workers (`prange(workers)`), never to "whoever is free", and every sum over tiles is
taken in a fixed order: the same input gives the same bytes for any number of threads.

Shapes stand in the docstrings, dtypes are float32 unless said otherwise. mypy does not look in here: numba infers and
checks the types of these functions when it compiles them.
"""

import os
from typing import Any

import numba

# Of the three libraries that numba can have its threads from it takes TBB where the system has one. With Debian 12's
# (2021.8) a process that had trained hung for good at its end, in tbb::finalize. GNU OpenMP is as quick.
_config: Any = numba.config  # makes its attributes at run time
if _config.THREADING_LAYER_PRIORITY == ["tbb", "omp", "workqueue"]:  # nobody has chosen another one
    _config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]

# GNU OpenMP lets waiting threads spin; on a machine that has other things to do, that made training three times as slow
# (docs/training.md). It looks at this once, when numba loads it for the first parallel kernel, so it is set before
# there can be one. Sleeping instead costs microseconds a kernel.
os.putenv("OMP_WAIT_POLICY", "passive")
