"""The interface of every rasterizer. `reference.py` defines the numbers; the others are faster."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.core.gaussians import Gaussians
from tasks.core.scene import Camera

Image = NDArray[np.float32]  # [H, W, 3] linear sum, not clipped
Float = NDArray[np.floating]

# The camera model and the blending rule, the same in all rasterizers: gsplat's "classic" mode.
NEAR_PLANE = 0.01  # scene units; Gaussians whose centre is nearer are not drawn
EPS2D = 0.3  # px², added to the diagonal of every projected covariance
MIN_ALPHA = 1 / 255  # a Gaussian contributes nothing to a pixel below this
MAX_ALPHA = 0.999
MIN_TRANSMITTANCE = 1e-4  # a pixel is finished before its transmittance would fall to this
FOV_MARGIN = 0.3  # the Jacobian is taken no further outside the image than this share of the half field of view


@dataclass(frozen=True)
class Gradients:
    """Derivatives of one scalar with respect to the Gaussians' parameters, in the same shapes.

    Coefficients of spherical harmonics above the rendered degree have derivative zero.
    """

    means: Float  # [N, 3]
    quats: Float  # [N, 4]
    log_scales: Float  # [N, 3]
    raw_opacities: Float  # [N]
    sh0: Float  # [N, 1, 3]
    shN: Float  # [N, K-1, 3]


class Rasterizer(Protocol):
    """Draws Gaussians, and carries an image's gradient back to them."""

    @property
    def name(self) -> str:
        """The backend's name: "reference", "cpu" or "cuda"."""

    def render(
        self,
        gaussians: Gaussians,
        camera: Camera,
        sh_degree: int | None = None,
        background: Sequence[float] = (0, 0, 0),
    ) -> Image:
        """The image that the camera sees.

        Args:
            gaussians: the Gaussians to draw.
            camera: pinhole camera, with the size of the image.
            sh_degree: highest degree of spherical harmonics to use, None for all that the Gaussians have.
            background: RGB behind the Gaussians, visible where they let light through.

        Returns:
            Image [H, W, 3], a linear sum that is not clipped to 0..1.
        """

    def forward(
        self,
        gaussians: Gaussians,
        camera: Camera,
        sh_degree: int | None = None,
        background: Sequence[float] = (0, 0, 0),
    ) -> Image:
        """As `render`, and remembers what `backward` needs. The image is valid until the next call."""

    def backward(self, d_image: Image) -> Gradients:
        """Gradients of a scalar whose derivative with respect to the last forward's image is d_image [H, W, 3]."""
