"""The Gaussians at the start: one at every sparse point, as large as the gap to its neighbours."""

import numpy as np
from scipy.spatial import cKDTree

from tasks.core.errors import InputError
from tasks.core.gaussians import SH_C0, SH_COEFFICIENTS, Gaussians
from tasks.core.scene import SparsePoints

MIN_POINTS = 20
NEIGHBOURS = 3
INITIAL_OPACITY = 0.3
KEPT_PERCENTILES = (1, 99)  # sizes beyond come from outliers and are brought back to these


def initial_gaussians(
    points: SparsePoints, sh_degree: int, max_gaussians: int, generator: np.random.Generator
) -> Gaussians:
    """Isotropic Gaussians at the points, in the points' colours.

    Args:
        points: sparse points; those that are not finite are left out.
        sh_degree: degree of the spherical harmonics to make room for.
        max_gaussians: when there are more points, a random choice of this many.
        generator: source of that choice.

    Raises:
        InputError: fewer than MIN_POINTS usable points.
    """
    usable = np.flatnonzero(np.isfinite(points.xyz).all(axis=1))
    if len(usable) < MIN_POINTS:
        raise InputError(
            f"The scene has {len(usable)} usable sparse points; training needs at least {MIN_POINTS}. "
            "Photos that overlap more, or show more texture, give more."
        )
    if len(usable) > max_gaussians:
        usable = np.sort(generator.choice(usable, max_gaussians, replace=False))
    xyz, rgb = points.xyz[usable], points.rgb[usable] / 255.0
    n = len(xyz)
    distances = np.asarray(cKDTree(xyz).query(xyz, k=NEIGHBOURS + 1)[0])  # [N, 1 + NEIGHBOURS], itself first
    sizes = np.sqrt((distances[:, 1:] ** 2).mean(axis=1))  # [N]
    positive = sizes[sizes > 0]
    if len(positive) == 0:
        raise InputError(f"All {n} sparse points lie in the same place; the photos show no depth.")
    sizes = np.clip(sizes, *np.percentile(positive, KEPT_PERCENTILES))
    return Gaussians(
        means=xyz.astype(np.float32),
        quats=np.tile(np.array([1, 0, 0, 0], np.float32), (n, 1)),
        log_scales=np.tile(np.log(sizes).astype(np.float32)[:, None], (1, 3)),
        raw_opacities=np.full(n, np.log(INITIAL_OPACITY / (1 - INITIAL_OPACITY)), np.float32),
        sh0=((rgb - 0.5) / SH_C0).astype(np.float32)[:, None, :],
        shN=np.zeros((n, SH_COEFFICIENTS[sh_degree] - 1, 3), np.float32),
    )
