"""The demo flight as a scene without structure from motion: true cameras, and points where its rays met something.

For machines that have no pycolmap. Sparse points are what structure from motion would give in kind, not in detail: a
few hundred pixels of each photo with 5 cm of noise, in the photo's colours.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from tasks.core.demo.camera_film import expose
from tasks.core.demo.flight_plan import DemoOptions, plan
from tasks.core.demo.world import build_world
from tasks.core.scene import IMAGES_FOLDER, Camera, Observations, Scene, SparsePoints
from tasks.core.transforms import Float64

POINTS_PER_PHOTO = 300
POINT_NOISE_M = 0.05
FARTHEST_M = 300.0  # the sky is farther, and has no points


def flight_scene(folder: Path, options: DemoOptions) -> Scene:
    """Write the scene into a folder and return it. The same options give the same bytes."""
    cameras, _ = plan(options)
    (folder / IMAGES_FOLDER).mkdir(parents=True, exist_ok=True)
    world, rng = build_world(options.extent_m, options.seed), np.random.default_rng(options.seed)
    xyz, rgb = [], []
    for camera in cameras:
        exposure = expose(world, camera)
        Image.fromarray(exposure.rgb).save(folder / IMAGES_FOLDER / camera.name, quality=95)
        near = np.flatnonzero(exposure.distance_m < FARTHEST_M)
        chosen = rng.choice(near, min(POINTS_PER_PHOTO, len(near)), replace=False)
        rows, columns = np.divmod(chosen, camera.width)
        hits = _points(camera, rows, columns, exposure.distance_m[rows, columns].astype(np.float64))
        xyz.append(hits + rng.normal(0, POINT_NOISE_M, hits.shape))
        rgb.append(exposure.rgb[rows, columns])
    count = sum(map(len, xyz))
    points = SparsePoints(np.concatenate(xyz), np.concatenate(rgb), np.ones(count), np.full(count, 3, np.int32))
    observing = np.repeat(np.arange(len(cameras)), [len(each) for each in xyz])
    observations = Observations(observing.astype(np.int32), np.arange(count, dtype=np.int32))
    up = np.array([0.0, 0.0, 1.0])
    scene = Scene(folder=folder, cameras=cameras, points=points, up=up, observations=observations)
    scene.save()
    return scene


def _points(camera: Camera, rows: np.ndarray, columns: np.ndarray, distances_m: Float64) -> Float64:
    """Where the rays through pixels [P] end in the world [P, 3]; distances are along the rays."""
    directions = np.stack(
        [
            (columns + 0.5 - camera.cx) / camera.fx,
            (rows + 0.5 - camera.cy) / camera.fy,
            np.ones(len(rows)),
        ],
        axis=1,
    )
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return camera.center + distances_m[:, None] * (directions @ camera.cam_from_world[:3, :3])
