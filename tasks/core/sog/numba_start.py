"""numba started and ended without what a short process has no use for.

It looks for a BLAS when the first kernel is loaded. That search imports scipy.linalg, an eighth of a second, and no
kernel of this stage multiplies matrices. Kernels elsewhere that do still find the BLAS, which numba asks for anew when
it compiles them. To be imported before the first kernel is called.

At the end Python walks through every object once more to find cycles, of which numba has hundreds of thousands: a
seventh of the time that small splats take. The process gives all its memory back without that.
"""

import atexit
import gc

import numba.np.linalg as numba_linalg


def _load_arrays_without_blas() -> None:
    search = numba_linalg.ensure_blas
    numba_linalg.ensure_blas = lambda: None
    try:
        import numba.np.arraymath  # noqa: F401 - asks for the BLAS while it is imported
    finally:
        numba_linalg.ensure_blas = search


_load_arrays_without_blas()
atexit.register(gc.freeze)
