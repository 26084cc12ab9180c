"""Compile every kernel of the CPU rasterizer into numba's cache, so that no run has to wait for it midway."""

import numba
import numpy as np

from tasks.core.gaussians import Gaussians
from tasks.core.progress import Progress, ProgressCallback
from tasks.core.render.cpu import CpuRasterizer
from tasks.core.render.kernels.adam import adam, bias_corrections
from tasks.core.render.kernels.loss import l1_ssim
from tasks.core.scene import Camera

SIZE_PX = 20
TENSORS = 6


def compile_kernels(on_progress: ProgressCallback) -> None:
    """Run every kernel once on a picture of a few pixels.

    This takes about half a minute on two cores the first time, and less than two seconds when numba's cache is filled.
    """
    rasterizer = CpuRasterizer()
    camera = Camera("warm-up", SIZE_PX, SIZE_PX, 20.0, 20.0, 10.0, 10.0, np.eye(4))
    on_progress(Progress(0, 4, "compiling the rasterizer"))
    image = rasterizer.forward(one_gaussian(), camera)
    on_progress(Progress(1, 4, "compiling its gradient"))
    gradients = rasterizer.backward_sparse(np.ones_like(image))
    on_progress(Progress(2, 4, "compiling the loss"))
    rows = image.reshape(SIZE_PX, 3 * SIZE_PX)
    workers = numba.get_num_threads()
    l1_ssim(
        rows, np.zeros(rows.shape, np.uint8), np.float32(0.2), workers, np.zeros((8, *rows.shape), np.float32), rows
    )
    on_progress(Progress(3, 4, "compiling the optimiser"))
    tensors = tuple(np.zeros((1, 1), np.float32) for _ in range(TENSORS))
    adam(
        tensors, tensors, tensors, tensors, np.ones(TENSORS, np.int64), np.zeros(TENSORS, np.float32),
        gradients.visible, gradients.pulls, np.zeros(1, np.int64), np.zeros(1, np.float32), np.zeros(1, np.float32),
        np.zeros(1, np.float32), np.float32(0), np.float32(0), bias_corrections(), workers,
    )  # fmt: skip
    on_progress(Progress(4, 4, "kernels ready"))


def one_gaussian() -> Gaussians:
    """A grey ball in front of the camera."""
    return Gaussians(
        means=np.array([[0, 0, 2]], np.float32),
        quats=np.array([[1, 0, 0, 0]], np.float32),
        log_scales=np.full((1, 3), -2, np.float32),
        raw_opacities=np.zeros(1, np.float32),
        sh0=np.zeros((1, 1, 3), np.float32),
        shN=np.zeros((1, 15, 3), np.float32),
    )
