"""How many Gaussians this machine's memory can train on the CPU."""

from tasks.core.gaussians import floats_per_gaussian
from tasks.core.training.memory import MIN_GAUSSIANS

# Of what is free, for all that is not counted here and for whoever else works on the machine.
SPARE_SHARE = 0.2
# A parameter, two moments, a gradient in a buffer that grows by quarters, and a copy when it is measured or saved.
BYTES_PER_FLOAT = 4 * (1 + 2 + 1.25 + 1)
# Projection, sorting and pairs of tile and Gaussian. Measured at degree 3, 960x640 and 200k to 1M Gaussians: 1.6 kB for
# each of them in all, with 1.3 to 2 pairs each; a pair takes 65 B, and this leaves room for 10. The render of depths
# has such buffers of its own, without harmonics: 350 B, counted.
BYTES_PER_GAUSSIAN = 950 + 350


def affordable_gaussians(available_bytes: float, sh_degree: int) -> int:
    """How many Gaussians of a degree so many free bytes suffice for, and no fewer than MIN_GAUSSIANS."""
    return max(MIN_GAUSSIANS, int(available_bytes * (1 - SPARE_SHARE) / bytes_each(sh_degree)))


def bytes_each(sh_degree: int) -> float:
    """Bytes that a Gaussian of a degree takes in training at most."""
    return floats_per_gaussian(sh_degree) * BYTES_PER_FLOAT + BYTES_PER_GAUSSIAN
