"""Constants as float32: a Python float would silently turn a kernel's arithmetic into float64."""

import numpy as np

from tasks.core.gaussians import SH_C0
from tasks.core.render import interface

F = np.float32

ZERO, HALF, ONE, TWO = F(0), F(0.5), F(1), F(2)
NEAR_PLANE = F(interface.NEAR_PLANE)
EPS2D = F(interface.EPS2D)
MIN_ALPHA = F(interface.MIN_ALPHA)
MAX_ALPHA = F(interface.MAX_ALPHA)
MIN_TRANSMITTANCE = F(interface.MIN_TRANSMITTANCE)
FOV_MARGIN = F(interface.FOV_MARGIN)
C0 = F(SH_C0)

MAX_DET = F(1e30)  # px⁴; beyond it float32 overflows (also false for values that are not finite)

# All flags that let loops vectorise, except those that ignore NaN and infinity: comparisons must still reject these.
FASTMATH = {"reassoc", "contract", "arcp", "nsz", "afn"}

TILE = 16  # px; a row of a tile is one AVX-512 register of float32

# One row of the `splats` array: a Gaussian as the image sees it.
MEAN_X, MEAN_Y, CONIC_A, CONIC_B, CONIC_C, OPACITY, RED, GREEN, BLUE, HALF_WIDTH, HALF_HEIGHT, DEPTH, LIMIT = range(13)
SPLAT_FIELDS = 13  # LIMIT: the ellipse where alpha = MIN_ALPHA is a dx² + 2 b dx dy + c dy² = LIMIT

# One row of the gradient that blending returns for a Gaussian.
D_MEAN_X, D_MEAN_Y, D_CONIC_A, D_CONIC_B, D_CONIC_C, D_OPACITY, D_RED, D_GREEN, D_BLUE, PULL_X, PULL_Y = range(11)
GRADIENT_FIELDS = 11  # PULL: sums over columns of pixels of the absolute gradient of the mean
