"""A scene that is made, not photographed: coloured Gaussians on a bumpy floor, seen from a ring of cameras."""

from pathlib import Path

import numpy as np
from PIL import Image

from tasks.core.gaussians import SH_C0, Gaussians
from tasks.core.render.backends import rasterizer_for
from tasks.core.scene import Camera, Scene, SparsePoints
from tasks.core.transforms import rigid


def looking_at(name: str, center: np.ndarray, width: int, height: int) -> Camera:
    """A camera that looks at the origin, z up in the world."""
    forward = -center / np.linalg.norm(center)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    focal = 1.1 * width
    return Camera(name, width, height, focal, focal, width / 2, height / 2, rigid(rotation, -rotation @ center))


def made_scene(
    folder: Path, cameras: int = 16, width: int = 96, height: int = 72, gaussians: int = 400, points: int = 150
) -> Scene:
    """Write the scene's photos and return it: a bad start, its points are noisy, few, and in wrong colours."""
    rng = np.random.default_rng(7)
    xy = rng.uniform(-1.2, 1.2, (gaussians, 2))
    means = np.column_stack([xy, 0.25 * np.sin(3 * xy[:, 0]) * np.cos(2 * xy[:, 1])])
    colors = 0.5 + 0.4 * np.sin(np.column_stack([4 * xy[:, 0], 5 * xy[:, 1], 3 * xy.sum(axis=1)]))
    truth = Gaussians(
        means=means.astype(np.float32),
        quats=rng.normal(size=(gaussians, 4)).astype(np.float32),
        log_scales=np.log(rng.uniform(0.04, 0.12, (gaussians, 3))).astype(np.float32),
        raw_opacities=rng.uniform(1, 4, gaussians).astype(np.float32),
        sh0=((colors - 0.5) / SH_C0).astype(np.float32)[:, None, :],
        shN=np.zeros((gaussians, 0, 3), np.float32),
    )
    angles = np.arange(cameras) * 2 * np.pi / cameras
    heights = 1.2 + 0.4 * np.sin(3 * angles)
    ring = tuple(
        looking_at(f"{i:03}.png", np.array([2.4 * np.cos(angle), 2.4 * np.sin(angle), z]), width, height)
        for i, (angle, z) in enumerate(zip(angles, heights, strict=True))
    )
    (folder / "images").mkdir(parents=True)
    rasterizer = rasterizer_for("cpu")
    for camera in ring:
        image = rasterizer.render(truth, camera)
        Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)).save(folder / "images" / camera.name)
    chosen = rng.permutation(gaussians)[:points]
    scene = Scene(
        folder=folder,
        cameras=ring,
        points=SparsePoints(
            xyz=means[chosen] + rng.normal(0, 0.03, (points, 3)),
            rgb=rng.integers(0, 256, (points, 3)).astype(np.uint8),
            errors_px=np.full(points, 1.0),
            track_lengths=np.full(points, 3, np.int32),
        ),
        up=np.array([0.0, 0.0, 1.0]),
    )
    scene.save()
    return scene
