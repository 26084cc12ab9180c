"""Choose the rasterizer. Nothing else does."""

from typing import Literal

from tasks.core.errors import MissingPartError
from tasks.core.render.interface import Rasterizer

Backend = Literal["auto", "cpu", "cuda", "reference"]


def rasterizer_for(backend: Backend) -> Rasterizer:
    """A rasterizer of the given kind.

    "auto" is CUDA on a machine where it works and the CPU anywhere else. A rasterizer keeps buffers between calls, so
    use each in one thread only. Raises MissingPartError, with the remedy, when the backend cannot run on this machine.
    """
    # Imported here so that a process only loads the libraries of its own backend: numba, torch or gsplat.
    chosen = resolve_backend(backend)
    if chosen == "cuda":
        from tasks.core.render.cuda import CudaRasterizer

        return CudaRasterizer()
    if chosen == "reference":
        from tasks.core.render.reference import ReferenceRasterizer

        return ReferenceRasterizer()
    from tasks.core.render.cpu import CpuRasterizer

    return CpuRasterizer()


def resolve_backend(backend: Backend) -> Literal["cpu", "cuda", "reference"]:
    """The backend that a request means on this machine. Raises MissingPartError when that cannot run here."""
    if backend in ("cpu", "reference"):
        return backend
    from tasks.core.render.cuda import why_unavailable

    reason = why_unavailable()
    if reason is None:
        return "cuda"
    if backend == "cuda":
        raise MissingPartError(f"{reason} Or choose the CPU with train.backend=cpu.")
    return "cpu"
