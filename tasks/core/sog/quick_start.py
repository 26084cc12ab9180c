"""Start and end numpy and numba without the parts that a short process does not need. Import this before both.

OpenBLAS starts a thread for each core when numpy is loaded, and its threads busy-wait for a while. That is a tenth of
the time for a small splat, and nothing here multiplies large matrices. Processes that this one starts do not inherit
the setting.

numba looks for a BLAS when the first kernel is loaded. The search imports scipy.linalg, which takes an eighth of a
second, and no kernel of this stage multiplies matrices. Kernels elsewhere that do so still find the BLAS, because numba
asks for it again when it compiles them.

Python's cycle collector walks through numba's objects, some hundred thousand, several times while they are made and
once more at the end: a quarter of the time for a small splat. They live as long as the process, and all its memory is
returned at its end anyway.
"""

import atexit
import gc

from tasks.core.library_loading import variable_while_loading

gc.disable()
with variable_while_loading("OPENBLAS_NUM_THREADS", "1"):
    import numba.np.linalg as numba_linalg  # while the cycle collector is off


def _load_arrays_without_blas() -> None:
    search = numba_linalg.ensure_blas
    numba_linalg.ensure_blas = lambda: None
    try:
        import numba.np.arraymath  # noqa: F401 - asks for the BLAS when imported
    finally:
        numba_linalg.ensure_blas = search


_load_arrays_without_blas()
gc.freeze()
gc.enable()
atexit.register(gc.freeze)
