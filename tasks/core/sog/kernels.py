"""Every numba kernel of this stage on a little data, which compiles it."""

import tempfile
from pathlib import Path

import numpy as np

from tasks.core.gaussians import Gaussians
from tasks.core.sog.codebook import make_codebook
from tasks.core.sog.options import CompressOptions
from tasks.core.sog.precision import FINEST, LADDER
from tasks.core.sog.writer import write_sog


def run_every_kernel() -> None:
    """Run every kernel once on a little data; numba keeps the result on disk."""
    rng = np.random.default_rng(0)
    n = 1200  # more than the smallest palette, so that k-means runs
    gaussians = Gaussians(
        means=rng.normal(size=(n, 3)).astype(np.float32),
        quats=rng.normal(size=(n, 4)).astype(np.float32),
        log_scales=rng.normal(size=(n, 3)).astype(np.float32),
        raw_opacities=rng.normal(size=n).astype(np.float32),
        sh0=rng.normal(size=(n, 1, 3)).astype(np.float32),
        shN=rng.normal(size=(n, 3, 3)).astype(np.float32),
    )
    with tempfile.TemporaryDirectory() as folder:
        for precision in (FINEST, LADDER[0]):
            write_sog(gaussians, Path(folder) / "scene.sog", CompressOptions(max_palette=64), precision=precision)
        make_codebook(rng.normal(size=100_000).astype(np.float32))  # so many that they are counted in bins
