"""Masks of the pixels whose surface several other photos show, too.

Training can only learn from several photos how a place looks from elsewhere, so a comparison is fair on these pixels.
The masks depend on cameras and sparse points alone, not on what was trained: recipes are compared on the same pixels.

A photo is cut into square cells. The surface in a cell is at the depth of the sparse points around it. Another photo
sees it where it lies in that photo's frame and is no further away than the surface found there.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tasks.core.scene import Camera, SparsePoints
from tasks.core.training.coverage import FEWEST_POINTS, project
from tasks.core.training.coverage import NEIGHBOURS as POINTS_PER_DEPTH
from tasks.core.transforms import Float64

SEEN_BY = 3  # photos, from which on a place counts as covered
CELLS = 64  # of a photo's longer side
CLEARANCE = 1 / 16  # of the longer side: a cell without a point so near has no known surface
BEHIND = 1.25  # times the depth of the surface found, from where on a place is hidden by it: between leaves and ground


class SurfaceMap:
    """The depth of the surface in each cell of a photo."""

    def __init__(self, camera: Camera, points: SparsePoints) -> None:
        self.camera = camera
        self.side_px = max(camera.width, camera.height) / CELLS
        self.rows, self.columns = (int(np.ceil(length / self.side_px)) for length in (camera.height, camera.width))
        self.depths = np.full((self.rows, self.columns), np.nan)  # NaN where nothing is known
        seen = project(points.xyz, camera)
        if seen.inside.sum() >= FEWEST_POINTS:
            pixels, depths = seen.pixels[seen.inside], seen.depths[seen.inside]
            distances, nearest = cKDTree(pixels).query(self._middles_px().reshape(-1, 2), k=POINTS_PER_DEPTH)
            near = np.asarray(distances)[:, 0] <= CLEARANCE * max(camera.width, camera.height)
            self.depths = np.where(near, np.median(depths[nearest], axis=1), np.nan).reshape(self.depths.shape)

    def _middles_px(self) -> Float64:
        """Middle of each cell [rows, columns, 2], x and y."""
        x, y = np.meshgrid(np.arange(self.columns) + 0.5, np.arange(self.rows) + 0.5)
        return np.asarray(np.stack([x, y], axis=-1) * self.side_px)

    def surface(self) -> Float64:
        """World positions of the surface in the middle of each cell [rows * columns, 3]; NaN where it is not known."""
        camera = self.camera
        rays = (self._middles_px() - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
        in_camera = np.concatenate([rays, np.ones((*rays.shape[:2], 1))], axis=-1) * self.depths[..., None]
        return np.asarray((in_camera.reshape(-1, 3) - camera.cam_from_world[:3, 3]) @ camera.cam_from_world[:3, :3])

    def sees(self, xyz: Float64) -> NDArray[np.bool_]:
        """Which places [P, 3] this photo shows [P]. Where its surface is not known, nothing hides what is in frame."""
        seen = project(xyz, self.camera)
        cells = (np.where(seen.inside[:, None], seen.pixels, 0) // self.side_px).astype(int)
        depths = self.depths[np.minimum(cells[:, 1], self.rows - 1), np.minimum(cells[:, 0], self.columns - 1)]
        return np.asarray(seen.inside & ~(seen.depths > BEHIND * depths))


def covered_pixels(
    cameras: Sequence[Camera], others: Sequence[Camera], points: SparsePoints
) -> list[NDArray[np.bool_]]:
    """For each of the cameras, the pixels [H, W] whose surface at least SEEN_BY of the others see."""
    points = _usable(points)
    maps = [SurfaceMap(camera, points) for camera in cameras]
    surfaces = [map_.surface() for map_ in maps]
    counts = [np.zeros(len(surface), int) for surface in surfaces]
    for other in others if maps else ():
        seen_from = SurfaceMap(other, points)
        for surface, count in zip(surfaces, counts, strict=True):
            asked = np.isfinite(surface).all(axis=1) & (count < SEEN_BY)  # more than enough is not counted
            count[asked] += seen_from.sees(surface[asked])
    return [_at_pixels(count >= SEEN_BY, map_) for count, map_ in zip(counts, maps, strict=True)]


def photos_showing(xyz: Float64, cameras: Sequence[Camera], points: SparsePoints) -> NDArray[np.int64]:
    """How many of the photos show each place [P, 3]; sparse points say what hides it."""
    points = _usable(points)
    counts = np.zeros(len(xyz), np.int64)
    for camera in cameras:
        counts += SurfaceMap(camera, points).sees(xyz)
    return counts


def finest_pixels(xyz: Float64, cameras: Sequence[Camera]) -> Float64:
    """The width of a pixel at each place [P], in the world's units, of the photo that shows it from nearest.

    Infinite where the place is in no photo's frame; what hides a place is not looked at.
    """
    widths = np.full(len(xyz), np.inf)
    for camera in cameras:
        seen = project(xyz, camera)
        widths = np.where(seen.inside, np.minimum(widths, seen.depths / camera.fx), widths)
    return np.asarray(widths)


def _usable(points: SparsePoints) -> SparsePoints:
    finite = np.isfinite(points.xyz).all(axis=1)
    return SparsePoints(*(array[finite] for array in vars(points).values()))


def _at_pixels(cells: NDArray[np.bool_], map_: SurfaceMap) -> NDArray[np.bool_]:
    """Cells [rows * columns] at the size of the photo [H, W]."""
    camera = map_.camera
    row_of, column_of = ((np.arange(length) // map_.side_px).astype(int) for length in (camera.height, camera.width))
    return np.asarray(cells.reshape(map_.rows, map_.columns)[row_of[:, None], column_of])
