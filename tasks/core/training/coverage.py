"""Project points into photos: gaps to fill, surfaces, and places that several photos show.

Gaps. Where structure from motion found nothing (leaves in the wind, plain walls, water, sky), training would begin with
a hole, and Gaussians at its edge would swell into it. So every part of a photo, an eighth of it wide, that has no point
gets one, at the depth of the points around it. A part above the horizon and away from all points belongs to the sky:
its point is placed far behind the scene, so that it cannot become something that floats in front of the cameras.

Surfaces. A photo is divided into square cells. The surface in a cell is at the depth of the sparse points around it.
Another photo sees the surface if it is within that photo's frame and no further away than the surface found there.

Masks. Training needs several photos of a place to learn how it looks from elsewhere, so a comparison is fair on pixels
whose surface several other photos show. These masks depend on cameras and sparse points alone, not on the trained
splat, so recipes are compared on the same pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tasks.core.scene import Camera, SparsePoints
from tasks.core.training.views import View
from tasks.core.transforms import Float64

MIN_POINTS = 20  # usable points that a scene needs for training
GAP_CELLS = 8  # of a photo's longer side
NEIGHBOURS = 4  # points; the depth of a place is the median depth of this many around it
FEWEST_POINTS = 10  # in a photo, for their depths to be meaningful
SKY_ELEVATION = 0.1  # sine of the angle above the horizon from which a gap is sky
SKY_CLEARANCE = 1.5  # cells without a point around a cell of sky
MOST_SHARE = 0.1  # of the existing points: more would displace Gaussians that are known to be needed
SKY_DISTANCE = 5.0  # in units of the radius that contains 95 % of the points

SEEN_BY = 3  # photos that must show a place for it to count as covered
SURFACE_CELLS = 64  # of a photo's longer side
CLEARANCE = 1 / 16  # of the longer side: the surface is unknown in a cell without a point within this distance
BEHIND = 1.25  # times the depth of the surface found: places further away are hidden by it, as ground is by leaves


class Projection(NamedTuple):
    """Points as a camera sees them. Rows of points that it does not see are meaningless."""

    pixels: Float64  # [P, 2] x and y in px
    depths: Float64  # [P]
    inside: NDArray[np.bool_]  # [P] in front of the camera and within its image; other points may hide the point


def project(xyz: Float64, camera: Camera) -> Projection:
    """Project points [P, 3] of the world into an image."""
    in_camera = xyz @ camera.cam_from_world[:3, :3].T + camera.cam_from_world[:3, 3]
    depths = in_camera[:, 2]
    in_front = depths > 0
    safe = np.where(in_front, depths, 1.0)[:, None]
    pixels = in_camera[:, :2] / safe * [camera.fx, camera.fy] + [camera.cx, camera.cy]
    inside = in_front & (pixels >= 0).all(axis=1) & (pixels < [camera.width, camera.height]).all(axis=1)
    return Projection(pixels, depths, inside)


def sky_distance(points: SparsePoints) -> float:
    """The depth at which the sky is placed behind a scene; 0 if all points are in one place."""
    xyz = points.xyz[np.isfinite(points.xyz).all(axis=1)]
    return SKY_DISTANCE * float(np.percentile(np.linalg.norm(xyz - np.median(xyz, axis=0), axis=1), 95))


def with_gaps_filled(
    points: SparsePoints,
    views: Sequence[View],
    up: Float64,
    generator: np.random.Generator,
    far: float | None = None,
) -> SparsePoints:
    """The points, followed by new ones for the parts of photos that have none.

    Args:
        points: sparse points; points that are not finite are left out.
        views: photos to train on. Points added for one photo count in the next ones.
        up: unit vector that points to the sky [3].
        generator: for the random position of each new point within its part of the photo.
        far: depth of the sky; None for that of these points.
    """
    usable = np.isfinite(points.xyz).all(axis=1)
    if usable.sum() < MIN_POINTS:
        return points
    xyz, rgb = points.xyz[usable], points.rgb[usable]
    far = sky_distance(points) if far is None else far
    if far == 0:  # all points are in one place, so no distance is known
        return points
    for view in views:
        seen = project(xyz, view.cameras[0])
        if seen.inside.sum() < FEWEST_POINTS:
            continue
        new_xyz, new_rgb = _gaps(view, seen.pixels[seen.inside], seen.depths[seen.inside], up, far, generator)
        xyz, rgb = np.concatenate([xyz, new_xyz]), np.concatenate([rgb, new_rgb])
    given = int(usable.sum())
    chosen = generator.permutation(len(xyz) - given)[: int(MOST_SHARE * given)]
    rows = np.concatenate([np.arange(given), given + np.sort(chosen)])
    new = len(chosen)
    return SparsePoints(
        xyz[rows],
        rgb[rows],
        np.concatenate([points.errors_px[usable], np.full(new, np.nan)]),
        np.concatenate([points.track_lengths[usable], np.zeros(new, points.track_lengths.dtype)]),
    )


def _gaps(
    view: View, pixels: Float64, depths: Float64, up: Float64, far: float, generator: np.random.Generator
) -> tuple[Float64, NDArray[np.uint8]]:
    """Positions [M, 3] and colours [M, 3] for the cells of one photo without any of the points at `pixels` [P, 2]."""
    camera, photo = view.cameras[0], view.photos[0]
    side = max(camera.width, camera.height) / GAP_CELLS
    rows, columns = int(np.ceil(camera.height / side)), int(np.ceil(camera.width / side))
    taken = np.zeros((rows, columns), bool)
    taken[(pixels[:, 1] // side).astype(int), (pixels[:, 0] // side).astype(int)] = True
    cells = np.argwhere(~taken)[:, ::-1]  # [M, 2] column and row
    size = np.array([camera.width, camera.height])
    new = np.minimum((cells + generator.random(cells.shape)) * side, size - 0.5)  # [M, 2] px
    if (hidden := view.hidden_at(0)) is not None:  # the colour there is not the place's
        x, y = new.astype(int).T
        new = new[~hidden[y, x]]
        if not len(new):
            return np.empty((0, 3)), np.empty((0, 3), np.uint8)

    distances, nearest = cKDTree(pixels).query(new, k=NEIGHBOURS)
    new_depths = np.median(depths[nearest], axis=1)
    rays = np.column_stack([(new - [camera.cx, camera.cy]) / [camera.fx, camera.fy], np.ones(len(new))])
    directions = rays @ camera.cam_from_world[:3, :3]
    elevations = directions @ up / np.linalg.norm(directions, axis=1)  # [M] sines
    sky = (elevations > SKY_ELEVATION) & (np.asarray(distances)[:, 0] > SKY_CLEARANCE * side)
    in_camera = rays * np.where(sky, far, new_depths)[:, None]
    xyz = (in_camera - camera.cam_from_world[:3, 3]) @ camera.cam_from_world[:3, :3]
    half = max(int(side / 2), 1)
    rgb = [
        photo[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1].reshape(-1, 3).mean(axis=0)
        for x, y in new.astype(int)
    ]
    return xyz, np.array(rgb, np.float64).reshape(-1, 3).round().astype(np.uint8)


class SurfaceMap:
    """The depth of the surface in each cell of a photo."""

    def __init__(self, camera: Camera, points: SparsePoints) -> None:
        self.camera = camera
        self.side_px = max(camera.width, camera.height) / SURFACE_CELLS
        self.rows, self.columns = (int(np.ceil(length / self.side_px)) for length in (camera.height, camera.width))
        self.depths = np.full((self.rows, self.columns), np.nan)  # NaN where nothing is known
        seen = project(points.xyz, camera)
        if seen.inside.sum() >= FEWEST_POINTS:
            pixels, depths = seen.pixels[seen.inside], seen.depths[seen.inside]
            distances, nearest = cKDTree(pixels).query(self._middles_px().reshape(-1, 2), k=NEIGHBOURS)
            near = np.asarray(distances)[:, 0] <= CLEARANCE * max(camera.width, camera.height)
            self.depths = np.where(near, np.median(depths[nearest], axis=1), np.nan).reshape(self.depths.shape)

    def _middles_px(self) -> Float64:
        """Middle of each cell [rows, columns, 2], x and y."""
        x, y = np.meshgrid(np.arange(self.columns) + 0.5, np.arange(self.rows) + 0.5)
        return np.asarray(np.stack([x, y], axis=-1) * self.side_px)

    def surface(self) -> Float64:
        """World positions of the surface in the middle of each cell [rows * columns, 3]; NaN where unknown."""
        camera = self.camera
        rays = (self._middles_px() - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
        in_camera = np.concatenate([rays, np.ones((*rays.shape[:2], 1))], axis=-1) * self.depths[..., None]
        return np.asarray((in_camera.reshape(-1, 3) - camera.cam_from_world[:3, 3]) @ camera.cam_from_world[:3, :3])

    def sees(self, xyz: Float64) -> NDArray[np.bool_]:
        """A mask [P] of the places [P, 3] that this photo shows. Unknown surfaces hide nothing."""
        seen = project(xyz, self.camera)
        cells = (np.where(seen.inside[:, None], seen.pixels, 0) // self.side_px).astype(int)
        depths = self.depths[np.minimum(cells[:, 1], self.rows - 1), np.minimum(cells[:, 0], self.columns - 1)]
        return np.asarray(seen.inside & ~(seen.depths > BEHIND * depths))


def covered_pixels(
    cameras: Sequence[Camera], others: Sequence[Camera], points: SparsePoints
) -> list[NDArray[np.bool_]]:
    """For each camera, a mask [H, W] of the pixels whose surface at least SEEN_BY of the others see."""
    points = _usable(points)
    maps = [SurfaceMap(camera, points) for camera in cameras]
    surfaces = [map_.surface() for map_ in maps]
    counts = [np.zeros(len(surface), int) for surface in surfaces]
    for other in others if maps else ():
        seen_from = SurfaceMap(other, points)
        for surface, count in zip(surfaces, counts, strict=True):
            asked = np.isfinite(surface).all(axis=1) & (count < SEEN_BY)  # others are covered already
            count[asked] += seen_from.sees(surface[asked])
    return [_at_pixels(count >= SEEN_BY, map_) for count, map_ in zip(counts, maps, strict=True)]


def photos_showing(xyz: Float64, cameras: Sequence[Camera], points: SparsePoints) -> NDArray[np.int64]:
    """The number of photos that show each place [P, 3]. Surfaces from sparse points may hide it."""
    points = _usable(points)
    counts = np.zeros(len(xyz), np.int64)
    for camera in cameras:
        counts += SurfaceMap(camera, points).sees(xyz)
    return counts


def finest_pixels(xyz: Float64, cameras: Sequence[Camera]) -> Float64:
    """The pixel width at each place [P], in the world's units, in the photo that shows it from the shortest distance.

    Infinite for a place outside every photo's frame. The place may be hidden in that photo.
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
    """Enlarge a mask of cells [rows * columns] to the size of the photo [H, W]."""
    camera = map_.camera
    row_of, column_of = ((np.arange(length) // map_.side_px).astype(int) for length in (camera.height, camera.width))
    return np.asarray(cells.reshape(map_.rows, map_.columns)[row_of[:, None], column_of])
