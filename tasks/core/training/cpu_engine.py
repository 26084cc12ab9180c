"""A step on the CPU: numba kernels from the parameters to the updated parameters."""

import numba
import numpy as np
from numpy.typing import NDArray

from tasks.core.render.cpu import CpuRasterizer
from tasks.core.render.kernels.adam import adam, bias_corrections, count_visible
from tasks.core.render.kernels.loss import l1_ssim
from tasks.core.scene import Camera
from tasks.core.training.population import PARAMETERS, Population
from tasks.core.training.schedule import StepSettings


class CpuEngine:
    """See `Engine`."""

    name = "cpu"
    device = "cpu"

    def __init__(self) -> None:
        self._rasterizer = CpuRasterizer()
        self._bias_corrections = bias_corrections()
        self._scratch = np.zeros((8, 0, 0), np.float32)
        self._d_image = np.zeros((0, 0), np.float32)

    def step(self, population: Population, camera: Camera, photo: NDArray[np.uint8], settings: StepSettings) -> float:
        """Forward, loss, backward, Adam; see `Engine.step`."""
        workers = numba.get_num_threads()
        image = self._rasterizer.forward(population.shared_gaussians(), camera, settings.sh_degree)
        height, width = camera.height, camera.width
        if self._d_image.shape != (height, 3 * width):
            self._scratch = np.zeros((8, height, 3 * width), np.float32)
            self._d_image = np.zeros((height, 3 * width), np.float32)
        loss = l1_ssim(
            image.reshape(height, -1), photo.reshape(height, -1), np.float32(settings.ssim_weight), workers,
            self._scratch, self._d_image,
        )  # fmt: skip
        gradients = self._rasterizer.backward_sparse(self._d_image.reshape(height, width, 3))
        updates = population.updates.numpy()
        count_visible(
            gradients.visible, gradients.means2d, workers, updates, population.scores.numpy(), population.seen.numpy()
        )
        n = population.count
        for name in PARAMETERS:
            parameters = population.parameters[name].numpy()[:n]
            columns = parameters[0].size if n else 0
            # Coefficients above the current degree have no gradient yet
            used = ((settings.sh_degree + 1) ** 2 - 1) * 3 if name == "shN" else columns
            if used:
                adam(
                    parameters.reshape(n, columns),
                    getattr(gradients.rows, name)[:n].reshape(n, columns),
                    population.first_moments[name].numpy()[:n].reshape(n, columns),
                    population.second_moments[name].numpy()[:n].reshape(n, columns),
                    gradients.visible, updates, self._bias_corrections, np.float32(settings.rates[name]), used, workers,
                )  # fmt: skip
        return float(loss)
