"""The surface that each part of a photo shows, and the cell that owns it.

A photo is divided into squares, as in `coverage.py`. The surface in a square is at the median depth of the nearest
sparse points that structure from motion observed in this photo. A square above the horizon without points around it
shows the sky, which is far behind the scene. So every square has a place, and every place an owner.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tasks.core.scene import Camera, Scene
from tasks.core.training.cells.regions import Owners, Regions
from tasks.core.training.coverage import (
    FEWEST_POINTS,
    GAP_CELLS,
    NEIGHBOURS,
    SKY_CLEARANCE,
    SKY_ELEVATION,
    SURFACE_CELLS,
    project,
)
from tasks.core.transforms import Float64

SAMPLED_EVERY = 4  # rows and columns of squares
MOST_SAMPLED = 20_000  # points of a scene that records no observations, of which each photo's are found by projection


class ObservedPoints:
    """The sparse points that each photo shows, finite ones alone."""

    def __init__(self, scene: Scene) -> None:
        self.xyz = scene.points.xyz
        finite = np.asarray(np.isfinite(self.xyz).all(axis=1))
        cameras, points = scene.observations.cameras, scene.observations.points
        if not len(points):
            cameras, points = _projected(scene, finite)
        kept = finite[points]
        order = np.argsort(cameras[kept], kind="stable")
        self.cameras: NDArray[np.int32] = cameras[kept][order]  # [O] ascending
        self.points: NDArray[np.int32] = points[kept][order]  # [O]
        self._starts = np.searchsorted(self.cameras, np.arange(len(scene.cameras) + 1))

    def of(self, camera: int) -> NDArray[np.int32]:
        """Numbers of the points that a camera, by its number in the scene, observes."""
        return self.points[self.range_of(camera)]

    def range_of(self, camera: int) -> slice:
        """The rows of `cameras` and `points` that belong to a camera."""
        return slice(int(self._starts[camera]), int(self._starts[camera + 1]))


def _projected(scene: Scene, finite: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Observations of a scene that records none: some of its points, in all photos whose frames contain them."""
    some = np.flatnonzero(finite)
    some = some[:: -(-len(some) // MOST_SAMPLED) or 1]
    inside = [np.flatnonzero(project(scene.points.xyz[some], camera).inside) for camera in scene.cameras]
    cameras = np.repeat(np.arange(len(inside)), [len(rows) for rows in inside])
    return cameras.astype(np.int32), some[np.concatenate([*inside, np.zeros(0, np.intp)])].astype(np.int32)


@dataclass(frozen=True)
class Surfaces:
    """Places of the surface in the squares of one photo."""

    places: Float64  # [rows, columns, 3]
    is_sky: NDArray[np.bool_]  # [rows, columns], and nothing that is known

    @classmethod
    def of(cls, camera: Camera, xyz: Float64, up: Float64, far: float) -> "Surfaces":
        """The surfaces in a photo.

        Args:
            camera: of the photo.
            xyz: points that it observes [P, 3].
            up: unit vector that points to the sky [3].
            far: distance of the sky.
        """
        side = max(camera.width, camera.height) / SURFACE_CELLS
        rows, columns = (int(np.ceil(length / side)) for length in (camera.height, camera.width))
        x, y = np.meshgrid((np.arange(columns) + 0.5) * side, (np.arange(rows) + 0.5) * side)
        middles = np.stack([x, y], axis=-1).reshape(-1, 2)  # px
        rays = np.column_stack([(middles - [camera.cx, camera.cy]) / [camera.fx, camera.fy], np.ones(len(middles))])
        rotation, translation = camera.cam_from_world[:3, :3], camera.cam_from_world[:3, 3]
        directions = rays @ rotation
        elevations = directions @ up / np.linalg.norm(directions, axis=1)
        seen = project(xyz, camera)
        pixels, depths = seen.pixels[seen.inside], seen.depths[seen.inside]
        if len(pixels) >= FEWEST_POINTS:
            distances, nearest = cKDTree(pixels).query(middles, k=NEIGHBOURS)
            clear_px = SKY_CLEARANCE * max(camera.width, camera.height) / GAP_CELLS
            is_sky = (elevations > SKY_ELEVATION) & (np.asarray(distances)[:, 0] > clear_px)
            surface = np.where(is_sky, far, np.median(depths[nearest], axis=1))
        else:
            is_sky, surface = np.ones(len(middles), bool), np.full(len(middles), far)
        places = (rays * surface[:, None] - translation) @ rotation
        return cls(places.reshape(rows, columns, 3), is_sky.reshape(rows, columns))

    def sample(self) -> Float64:
        """Some places of the surface [S, 3], evenly spread over the photo, without the sky."""
        some = np.s_[SAMPLED_EVERY // 2 :: SAMPLED_EVERY, SAMPLED_EVERY // 2 :: SAMPLED_EVERY]
        return np.asarray(self.places[some][~self.is_sky[some]])

    def owners(self, regions: Regions) -> Owners:
        """The cell that owns each square [rows, columns]."""
        return regions.owner(self.places.reshape(-1, 3)).reshape(self.places.shape[:2])

    def within(self, regions: Regions, cell: int, margin: float) -> NDArray[np.bool_]:
        """Squares [rows, columns] in a cell or at most `margin` outside of it."""
        beyond = regions.outside_by(cell, self.places.reshape(-1, 3))
        return np.asarray(beyond <= margin).reshape(self.places.shape[:2])
