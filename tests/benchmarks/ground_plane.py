"""Is the ground level? The plane that most sparse points of a scene lie near, and how far it is tilted from z up."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRIALS = 2000  # three of four points on the ground: one trial in three hits
TOLERANCE_M = 1.0  # a beach rises and falls by some decimetres


@dataclass(frozen=True)
class Ground:
    """A plane, in degrees from horizontal, and the share of all points (0 to 1) that lie within the tolerance of it."""

    tilt_deg: float
    share: float


def find_ground(points: NDArray[np.float64], seed: int = 0) -> Ground:
    """RANSAC over points [N, 3] in metres, z up, then least squares through those near the best plane."""
    generator = np.random.default_rng(seed)
    best = np.zeros(len(points), dtype=bool)
    for _ in range(TRIALS):
        a, b, c = points[generator.choice(len(points), 3, replace=False)]
        normal = np.cross(b - a, c - a)
        length = np.linalg.norm(normal)
        if length > 0:
            near = np.abs((points - a) @ normal) < TOLERANCE_M * length
            best = near if near.sum() > best.sum() else best
    *_, axes = np.linalg.svd(points[best] - points[best].mean(axis=0), full_matrices=False)
    return Ground(float(np.degrees(np.arccos(min(abs(axes[2, 2]), 1.0)))), float(best.mean()))
