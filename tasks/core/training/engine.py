"""One optimiser step: the interface of engines, and the engine on the CPU.

On the CPU numba kernels compute the whole step, from the parameters to the updated parameters.
"""

from typing import NamedTuple, Protocol

import numba
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tasks.core.gaussians import SH_C0
from tasks.core.render.cpu import CpuRasterizer, SparseGradients
from tasks.core.render.kernels.adam import adam, bias_corrections
from tasks.core.render.kernels.loss import l1_ssim
from tasks.core.scene import Camera
from tasks.core.training.depth import NEAREST, DepthTargets, colored_by_depth, depth_loss
from tasks.core.training.population import PARAMETERS, Population
from tasks.core.training.schedule import FLAT_COLORS_UNTIL, HARMONICS_DECAY, StepSettings

SAMPLED_EVERY = 8


class StepResult(NamedTuple):
    """Measurements of a step, taken before it changed the parameters."""

    loss: float
    sample: NDArray[np.float32]  # [h, w, 3] every SAMPLED_EVERY-th row and column of the render, before the gain


class Engine(Protocol):
    """Renders, compares, and updates the parameters. A step is one call, so that an engine may fuse its parts."""

    @property
    def name(self) -> str:
        """The backend's name, "cpu" or "cuda"."""

    @property
    def device(self) -> str:
        """The torch device of the population."""

    @property
    def max_gaussians(self) -> int | None:
        """The number of Gaussians that fit into the device's memory; None where it was not computed."""

    @property
    def decisions(self) -> tuple[str, ...]:
        """Choices made so far because of this machine, one sentence each."""

    @property
    def degradations(self) -> tuple[str, ...]:
        """Ways in which the result will be worse than the options ask for, as far as known, one sentence each."""

    def step(
        self,
        population: Population,
        camera: Camera,
        photo: NDArray[np.uint8],
        gain: NDArray[np.float32],
        settings: StepSettings,
        depth: DepthTargets | None = None,
        hidden: NDArray[np.bool_] | None = None,
    ) -> StepResult:
        """Update the Gaussians that the camera sees so that `gain` times the render comes closer to the photo.

        The returned loss is that of the photo, without depths. Where reading every loss would make the device wait, it
        is the mean of a few recent steps; a loss that is not finite is then noticed within these steps.

        Adds to the population's `updates`, `scores` and `seen`.

        Args:
            population: the Gaussians.
            camera: with the photo's size.
            photo: uint8 [H, W, 3].
            gain: exposure of this photo by channel [3]; see `Exposures`.
            settings: the schedule's settings for this step.
            depth: depths of the photo's surface, if this step compares them; Gaussians that the photo does not show
                are not changed.
            hidden: [H, W], pixels of the photo that count as rendered perfectly, whatever they show.
        """


class CpuEngine:
    """See `Engine`."""

    name = "cpu"
    device = "cpu"
    decisions: tuple[str, ...] = ()

    def __init__(self, max_gaussians: int | None = None, degradations: tuple[str, ...] = ()) -> None:
        """`max_gaussians`: the number that fits into memory, None if unknown; `degradations`: its consequences."""
        self.max_gaussians = max_gaussians
        self.degradations = degradations
        self._rasterizer = CpuRasterizer()
        self._of_depth = CpuRasterizer()  # with its own buffers: both gradients are needed at the same time
        self._corrections = bias_corrections()
        self._scratch = np.zeros((8, 0, 0), np.float32)
        self._d_image = np.zeros((0, 0), np.float32)
        self._exposed = np.zeros((0, 0, 3), np.float32)

    def step(
        self,
        population: Population,
        camera: Camera,
        photo: NDArray[np.uint8],
        gain: NDArray[np.float32],
        settings: StepSettings,
        depth: DepthTargets | None = None,
        hidden: NDArray[np.bool_] | None = None,
    ) -> StepResult:
        """Forward, loss, backward, Adam; see `Engine.step`."""
        workers = numba.get_num_threads()
        image = self._rasterizer.forward(population.shared_gaussians(), camera, settings.sh_degree)
        height, width = camera.height, camera.width
        if self._d_image.shape != (height, 3 * width):
            self._scratch = np.zeros((8, height, 3 * width), np.float32)
            self._d_image = np.zeros((height, 3 * width), np.float32)
            self._exposed = np.zeros((height, width, 3), np.float32)
        np.multiply(image, gain, out=self._exposed)
        if hidden is not None:
            photo = np.where(hidden[..., None], (self._exposed.clip(0, 1) * 255 + 0.5).astype(np.uint8), photo)
        loss = l1_ssim(
            self._exposed.reshape(height, -1), photo.reshape(height, -1), np.float32(settings.ssim_weight), workers,
            self._scratch, self._d_image,
        )  # fmt: skip
        d_image = self._d_image.reshape(height, width, 3)
        d_image *= gain
        if hidden is not None:
            d_image[hidden] = 0
        gradients = self._rasterizer.backward_sparse(d_image)
        if depth is not None and settings.depth_weight > 0:
            self._add_depth(gradients, population, depth, settings.depth_weight)
        n, parameters = population.count, population.parameters
        columns = {name: parameters[name][0].numel() for name in PARAMETERS}
        # Coefficients above the current degree have no gradient yet
        columns["shN"] = min(columns["shN"], 3 * ((settings.sh_degree + 1) ** 2 - 1))
        adam(
            self._rows(parameters, n),
            tuple(two_dimensional(getattr(gradients.rows, name)[:n]) for name in PARAMETERS),
            self._rows(population.first_moments, n),
            self._rows(population.second_moments, n),
            np.array([columns[name] for name in PARAMETERS]),
            np.array([settings.rates[name] for name in PARAMETERS], np.float32),
            gradients.visible, gradients.pulls, population.updates.numpy(), population.scores.numpy(),
            population.seen.numpy(), population.shown_by.numpy(), np.float32(FLAT_COLORS_UNTIL),
            np.float32(HARMONICS_DECAY), self._corrections, workers,
        )  # fmt: skip
        return StepResult(float(loss), image[::SAMPLED_EVERY, ::SAMPLED_EVERY])

    def _add_depth(
        self, gradients: SparseGradients, population: Population, targets: DepthTargets, weight: float
    ) -> None:
        """Add the gradient of `depth_loss` to that of the photo, for the Gaussians that the photo shows."""
        gaussians, inverse = colored_by_depth(population.shared_gaussians(), targets)
        image = self._of_depth.forward(gaussians, targets.camera, 0)
        found = self._of_depth.backward_sparse(depth_loss(image, targets, weight)[1])
        shown = np.zeros(len(gaussians), bool)
        shown[gradients.visible] = True
        rows = found.visible[shown[found.visible]]
        for name in ("means", "quats", "log_scales", "raw_opacities"):
            getattr(gradients.rows, name)[rows] += getattr(found.rows, name)[rows]
        # A Gaussian's color is its inverse depth u / z, so d color / d mean = -(u / z)² / u times the z axis. It is
        # constant where z is at most the nearest depth
        inverse = inverse[rows]
        d_inverse = np.where(inverse < 1 / NEAREST, found.rows.sh0[rows, 0, 0] / np.float32(SH_C0), 0)
        along = -d_inverse * inverse**2 / np.float32(targets.unit)
        gradients.rows.means[rows] += along[:, None] * targets.camera.forward.astype(np.float32)

    @staticmethod
    def _rows(arrays: dict[str, Tensor], n: int) -> tuple[NDArray[np.float32], ...]:
        return tuple(two_dimensional(arrays[name].numpy()[:n]) for name in PARAMETERS)


def two_dimensional(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same memory as [N, D]."""
    return array.reshape(len(array), array[0].size if len(array) else 0)
