"""Compression: Gaussians into the PlayCanvas SOG format, version 2, and back."""


def compile_kernels() -> None:
    """Compile this stage's numba kernels, so that set-up pays for it and not the first user."""
    # Imported here: the options alone must not load numba.
    from tasks.core.sog.writer import run_every_kernel

    run_every_kernel()
