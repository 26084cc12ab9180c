"""Splats for tests: small, seeded, and with the structure of real ones."""

import numpy as np
from numpy.typing import NDArray

from tasks.core.gaussians import SH_C0, SH_COEFFICIENTS, Gaussians


def terrain(count: int, degree: int = 3, seed: int = 0) -> Gaussians:
    """A 10 x 10 terrain, z up, with three coloured boxes, seen from any side; every third Gaussian is on a box."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(-5, 5, (count, 2))
    z = 0.4 * np.sin(xy[:, 0]) + 0.3 * np.cos(1.3 * xy[:, 1])
    color = np.stack([0.35 + 0.25 * np.sin(2 * xy[:, 0]), 0.5 + 0.2 * np.cos(2 * xy[:, 1]), 0.3 + 0 * z], axis=1)
    means = np.column_stack([xy, z])
    boxes = (((-2.5, -2, 0.8), (0.9, 0.1, 0.1)), ((2, -1, 1.1), (0.1, 0.2, 0.9)), ((0.3, 2.5, 0.7), (0.9, 0.8, 0.1)))
    for k, (center, paint) in enumerate(boxes):
        rows = np.arange(k, count, 9)
        points = rng.uniform(-0.8, 0.8, (len(rows), 3))
        axis = rng.integers(0, 3, len(rows))  # push every point to one of the six faces
        points[np.arange(len(rows)), axis] = np.sign(points[np.arange(len(rows)), axis]) * 0.8
        means[rows] = np.array(center) + points
        color[rows] = np.array(paint) * rng.uniform(0.8, 1, (len(rows), 1))
    coefficients = SH_COEFFICIENTS[degree] - 1
    directions = rng.normal(size=(3, coefficients * 3))  # a few ways to depend on the viewing direction, mixed
    mixed = np.column_stack([np.sin(means[:, 0]), np.cos(means[:, 1]), rng.normal(size=count)]) @ directions
    rest = 0.05 * mixed + 0.01 * rng.normal(size=(count, coefficients * 3))
    spacing = np.log(14 / np.sqrt(count))
    return as_gaussians(
        means=means,
        quats=rng.normal(size=(count, 4)),
        log_scales=spacing + rng.normal(-0.7, 0.4, (count, 3)),
        raw_opacities=rng.normal(3, 1.5, count),
        sh0=((color - 0.5) / SH_C0)[:, None],
        shN=rest.reshape(count, coefficients, 3),
    )


def as_gaussians(**arrays: NDArray[np.floating]) -> Gaussians:
    return Gaussians(**{name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()})
