"""Choose the photos that are held out: every n-th in name order, and never one whose near copy is trained on.

A burst, or a picture in two files, shows one view several times. Held-out quality says nothing where training has seen
the very view, so photos of one view are all trained on or all held out.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.core.scene import Camera, Scene
from tasks.core.transforms import Float64

SAME_SHIFT = 0.005  # of the picture's width, by which points move between photos of one view: the most, as a median
SAME_DIRECTION = np.cos(np.radians(1.0))
SAME_PLACE = 0.02  # of the depth of what a camera sees: farther apart, points move by more than SAME_SHIFT
MOST_POINTS = 2000
FEWEST_POINTS = 8


def split_views(scene: Scene, hold_out_every: int) -> tuple[tuple[Camera, ...], tuple[Camera, ...]]:
    """Training cameras and held-out cameras: every n-th view in name order, from the first on (as the 3DGS papers).

    A view is a photo with its near copies.
    """
    views = views_of(scene)
    held_out = {camera.name for view in views[::hold_out_every] for camera in view}
    by_name = sorted(scene.cameras, key=lambda camera: camera.name)
    return (
        tuple(camera for camera in by_name if camera.name not in held_out),
        tuple(camera for camera in by_name if camera.name in held_out),
    )


def views_of(scene: Scene) -> list[list[Camera]]:
    """Return the scene's cameras in name order, those of one view together.

    Each camera belongs to the first view whose first camera it is near to, so that slow videos do not become one view.
    """
    cameras = sorted(scene.cameras, key=lambda camera: camera.name)
    points = scene.points.xyz[np.isfinite(scene.points.xyz).all(axis=1)]
    points = points[:: max(len(points) // MOST_POINTS, 1)]
    if len(points) < FEWEST_POINTS:
        return [[camera] for camera in cameras]
    poses = np.stack([camera.cam_from_world for camera in cameras])  # [C, 4, 4]
    centers = np.stack([camera.center for camera in cameras])
    depths = _depths(poses, points)
    taken = np.zeros(len(cameras), np.bool_)
    views: list[list[Camera]] = []
    for number, camera in enumerate(cameras):
        if taken[number]:
            continue
        near = (
            ~taken
            & (poses[:, 2, :3] @ poses[number, 2, :3] >= SAME_DIRECTION)
            & (poses[:, 1, :3] @ poses[number, 1, :3] >= SAME_DIRECTION)
            & (np.linalg.norm(centers - centers[number], axis=1) <= SAME_PLACE * depths[number])
        )
        near[: number + 1] = False
        same = [int(other) for other in np.flatnonzero(near) if _shift(camera, cameras[other], points) <= SAME_SHIFT]
        taken[[number, *same]] = True
        views.append([camera, *(cameras[other] for other in same)])
    return views


def _depths(poses: Float64, points: Float64) -> Float64:
    """Return the median depth of the points in front of each camera [C]; 0 where there are none."""
    along = poses[:, 2, :3] @ points.T + poses[:, 2, 3:]  # [C, P]
    return np.array([np.median(depths[depths > 0]) if (depths > 0).any() else 0.0 for depths in along])


def _shift(one: Camera, other: Camera, points: Float64) -> float:
    """Return the median distance between the places of points in two images, as a share of the images' sizes."""
    (first, in_first), (second, in_second) = _places(one, points), _places(other, points)
    both = in_first & in_second
    if both.sum() < FEWEST_POINTS:
        return float("inf")
    return float(np.median(np.linalg.norm(first[both] - second[both], axis=1)))


def _places(camera: Camera, points: Float64) -> tuple[Float64, NDArray[np.bool_]]:
    """Return places [P, 2] as shares of width and height, and whether they are in the image."""
    local = points @ camera.cam_from_world[:3, :3].T + camera.cam_from_world[:3, 3]
    depth = np.where(local[:, 2] > 1e-9, local[:, 2], 1.0)
    x = (camera.fx * local[:, 0] / depth + camera.cx) / camera.width
    y = (camera.fy * local[:, 1] / depth + camera.cy) / camera.height
    inside = (local[:, 2] > 1e-9) & (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
    return np.column_stack([x, y]), inside
