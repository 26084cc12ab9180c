"""The parameters of a Gaussian splat, as they are optimised and stored: before activation."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

SH_C0 = 0.28209479177387814  # Y_0^0 = 1 / (2 sqrt(pi)); color = 0.5 + SH_C0 * sh0
SH_COEFFICIENTS = (1, 4, 9, 16)  # K by degree, the constant term included
MAX_SH_DEGREE = 3


def floats_per_gaussian(sh_degree: int) -> int:
    """Numbers of one Gaussian: mean 3, quaternion 4, scales 3, opacity 1, and three colours' coefficients."""
    return 3 + 4 + 3 + 1 + 3 * SH_COEFFICIENTS[sh_degree]


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians, float32, C-contiguous.

    Activations: scales = exp(log_scales), opacities = sigmoid(raw_opacities), quats are normalised when used.
    """

    means: Float32  # [N, 3] in scene units
    quats: Float32  # [N, 4] wxyz, not necessarily normalised
    log_scales: Float32  # [N, 3]
    raw_opacities: Float32  # [N] logits
    sh0: Float32  # [N, 1, 3]
    shN: Float32  # [N, K-1, 3], K = 1, 4, 9 or 16

    def __post_init__(self) -> None:
        n, rest = len(self.means), self.shN.shape[1] if self.shN.ndim == 3 else -1
        expected = {
            "means": (n, 3),
            "quats": (n, 4),
            "log_scales": (n, 3),
            "raw_opacities": (n,),
            "sh0": (n, 1, 3),
            "shN": (n, rest, 3),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"{name} is {array.dtype}{list(array.shape)}, expected float32{list(shape)}")
        if rest + 1 not in SH_COEFFICIENTS:
            raise ValueError(f"shN holds {rest} coefficients per channel, expected one of 0, 3, 8, 15")

    def __len__(self) -> int:
        return len(self.means)

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return SH_COEFFICIENTS.index(self.shN.shape[1] + 1)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> "Gaussians":
        """The Gaussians at the given positions, in that order (or where the mask holds)."""
        return Gaussians(**{f.name: np.ascontiguousarray(getattr(self, f.name)[index]) for f in fields(self)})
