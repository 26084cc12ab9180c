"""Start and end numpy and numba without the parts that a short process has no use for. Import this before both.

OpenBLAS starts a thread for each core when numpy is loaded, and its threads busy-wait for a while: a tenth of
the time that a small splat takes, and nothing here multiplies large matrices. Processes that this one starts
do not inherit that.

numba looks for a BLAS when the first kernel is loaded. That search imports scipy.linalg, an eighth of a second, and no
kernel of this stage multiplies matrices. Kernels elsewhere that do still find the BLAS, which numba asks for anew when
it compiles them.

Python's search for cycles walks through numba's objects, some hundred thousand, several times while they are made and
once more at the end: a quarter of the time that a small splat takes. They live as long as the process, which returns
all its memory without that.
"""

import atexit
import gc

from tasks.core.library_loading import variable_while_loading

gc.disable()
with variable_while_loading("OPENBLAS_NUM_THREADS", "1"):
    import numba.np.linalg as numba_linalg  # while nothing looks for cycles


def _load_arrays_without_blas() -> None:
    search = numba_linalg.ensure_blas
    numba_linalg.ensure_blas = lambda: None
    try:
        import numba.np.arraymath  # noqa: F401 - asks for the BLAS while it is imported
    finally:
        numba_linalg.ensure_blas = search


_load_arrays_without_blas()
gc.freeze()
gc.enable()
atexit.register(gc.freeze)
