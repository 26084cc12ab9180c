"""Scenes made of cameras around the test terrain, with sparse points on it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.georeference import Georeference
from tasks.core.scene import Camera, Scene, SparsePoints
from tasks.core.transforms import rigid
from tests.core.sog.splats import terrain

Z_UP = np.array([0.0, 0.0, 1.0])


def looking(
    center: tuple[float, float, float],
    target: tuple[float, float, float],
    name: str = "a.jpg",
    size: tuple[int, int] = (480, 300),
    image_up: NDArray[np.float64] = Z_UP,
) -> Camera:
    """A camera at `center` that looks at `target`; the image's up is as near to `image_up` as can be."""
    forward = np.subtract(target, center)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, image_up)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    focal = 0.83 * max(size)
    return Camera(
        name, *size, focal, focal, size[0] / 2, size[1] / 2, rigid(rotation, -rotation @ np.array(center, float))
    )


def scene_of(folder: Path, cameras: tuple[Camera, ...], *, georeferenced: bool = False) -> Scene:
    """A scene with 400 sparse points of the terrain; no image files."""
    splat = terrain(400, 0)
    return Scene(
        folder=folder,
        cameras=cameras,
        points=SparsePoints(
            xyz=splat.means.astype(np.float64),
            rgb=np.clip((splat.sh0[:, 0] * 0.282 + 0.5) * 255, 0, 255).astype(np.uint8),
            errors_px=np.full(400, 0.7),
            track_lengths=np.full(400, 4, np.int32),
        ),
        up=Z_UP,
        georeference=Georeference(latitude_deg=47.1, longitude_deg=8.2, altitude_m=450.0, residual_rms_m=0.8)
        if georeferenced
        else None,
    )


def orbit(count: int, radius: float = 9.0, height: float = 5.0) -> tuple[Camera, ...]:
    """Cameras on a circle that look at the middle."""
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return tuple(
        looking((radius * np.cos(a), radius * np.sin(a), height), (0, 0, 0.3), f"flight/{i:02d}.jpg")
        for i, a in enumerate(angles)
    )
