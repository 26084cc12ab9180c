"""Rows in an order in which neighbours in space are neighbours in memory.

A tile of a photo reads the splats that touch it, and the rows of neighbours then share cache lines and pages. At
960x640 a step with 200k random Gaussians takes 0.7 of the CPU time that it takes with rows in any order, with 500k 0.6.
"""

import torch
from torch import Tensor

LEVELS = 1 << 10  # cells along the longest side, ten bits for each axis
WITHOUT_OUTLIERS = (0.01, 0.99)  # what lies beyond these quantiles of an axis goes into the outermost cells
SAMPLE = 100_000  # places, about, of which the quantiles are taken
# (factor, mask): the bits of a number below 1024 move apart until two zeros follow each, three steps after the first
SPREADING = ((1 << 16 | 1, 0x030000FF), (1 << 8 | 1, 0x0300F00F), (1 << 4 | 1, 0x030C30C3), (1 << 2 | 1, 0x09249249))


def morton_order(means: Tensor) -> Tensor:
    """The order [N] of places [N, 3] along a Z-order curve (Morton 1966); equal places keep their order."""
    some = means[:: len(means) // SAMPLE + 1]
    low, high = torch.quantile(some, torch.tensor(WITHOUT_OUTLIERS, device=means.device), dim=0)
    side = (high - low).max().clamp_min(1e-12)  # the same for all axes: a flat scene has few layers
    cells = ((means - low) / side * LEVELS).long().clamp(0, LEVELS - 1)
    for factor, mask in SPREADING:
        cells = cells * factor & mask
    codes = cells[:, 0] | cells[:, 1] << 1 | cells[:, 2] << 2
    return torch.argsort(codes, stable=True)
