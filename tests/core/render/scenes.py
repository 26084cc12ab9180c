"""Random Gaussians in front of a camera, for tests and benchmarks."""

import numpy as np

from tasks.core.gaussians import Gaussians
from tasks.core.scene import Camera
from tasks.core.transforms import rigid, rotmat_from_quat


def random_gaussians(
    n: int, width: int, height: int, size_px: float, sh_degree: int = 3, seed: int = 0
) -> tuple[Gaussians, Camera]:
    """Gaussians of about `size_px` (one standard deviation) all over the image and a little beyond, some see-through.

    Depths 2 to 12; the camera is turned and off the origin so that no term of the projection drops out.
    """
    rng = np.random.default_rng(seed)
    focal = 0.9 * max(width, height)
    depth = rng.uniform(2, 12, n)
    x = (rng.uniform(-0.1, 1.1, n) - 0.5) * width / focal * depth
    y = (rng.uniform(-0.1, 1.1, n) - 0.5) * height / focal * depth
    cam_from_world = rigid(rotmat_from_quat(np.array([0.9, 0.2, -0.3, 0.1])), np.array([0.3, -0.2, 0.5]))
    rotation, translation = cam_from_world[:3, :3], cam_from_world[:3, 3]
    means = (np.stack([x, y, depth], axis=1) - translation) @ rotation
    gaussians = Gaussians(
        means=means.astype(np.float32),
        quats=rng.normal(size=(n, 4)).astype(np.float32),
        log_scales=(np.log(size_px * depth / focal)[:, None] + rng.normal(0, 0.5, (n, 3))).astype(np.float32),
        raw_opacities=rng.normal(0, 1.5, n).astype(np.float32),
        sh0=rng.normal(0, 0.8, (n, 1, 3)).astype(np.float32),
        shN=rng.normal(0, 0.15, (n, (sh_degree + 1) ** 2 - 1, 3)).astype(np.float32),
    )
    camera = Camera("view", width, height, focal, 1.05 * focal, width / 2 + 0.3, height / 2 - 0.4, cam_from_world)
    return gaussians, camera
