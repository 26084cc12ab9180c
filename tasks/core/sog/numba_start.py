"""numba without the BLAS that it looks for when the first kernel is loaded.

That search imports scipy.linalg, an eighth of a second that a process which only compresses a splat has no use for: no
kernel of this stage multiplies matrices. Kernels elsewhere that do still find the BLAS, which numba asks for anew when
it compiles them. To be imported before the first kernel is called.
"""

import numba.np.linalg as numba_linalg


def _load_arrays_without_blas() -> None:
    search = numba_linalg.ensure_blas
    numba_linalg.ensure_blas = lambda: None
    try:
        import numba.np.arraymath  # noqa: F401 - asks for the BLAS while it is imported
    finally:
        numba_linalg.ensure_blas = search


_load_arrays_without_blas()
