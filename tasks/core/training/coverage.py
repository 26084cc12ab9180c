"""Points for what the photos show and structure from motion left out.

Where structure from motion found nothing (leaves that the wind moves, plain walls, water, sky), training would begin
with a hole, which Gaussians at its edge swell into. So every part of a photo that is an eighth of it wide and has no
point gets one, at the depth of those around it. Above the horizon and away from all points it is the sky's, and goes
far behind the scene, where it cannot become something that floats before the cameras.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tasks.core.scene import Camera, SparsePoints
from tasks.core.training.initialise import MIN_POINTS
from tasks.core.training.views import View
from tasks.core.transforms import Float64

CELLS = 8  # of a photo's longer side
NEIGHBOURS = 4  # whose median depth a new point gets
FEWEST_POINTS = 10  # that a photo has to show, for their depths to say something
SKY_ELEVATION = 0.1  # sine of the angle above the horizon from which a gap is sky
SKY_CLEARANCE = 1.5  # cells without a point around a cell of sky
MOST_SHARE = 0.1  # of the points there are: more would take the place of Gaussians that are known to be needed
SKY_DISTANCE = 5.0  # in units of the distance within which 95 % of the points lie


class Projection(NamedTuple):
    """Points as a camera sees them; rows of points that it does not see are meaningless."""

    pixels: Float64  # [P, 2] x and y in px
    depths: Float64  # [P]
    inside: NDArray[np.bool_]  # [P] in front of the camera and within its image; others may stand before the point


def project(xyz: Float64, camera: Camera) -> Projection:
    """Where points [P, 3] of the world lie in an image."""
    in_camera = xyz @ camera.cam_from_world[:3, :3].T + camera.cam_from_world[:3, 3]
    depths = in_camera[:, 2]
    in_front = depths > 0
    safe = np.where(in_front, depths, 1.0)[:, None]
    pixels = in_camera[:, :2] / safe * [camera.fx, camera.fy] + [camera.cx, camera.cy]
    inside = in_front & (pixels >= 0).all(axis=1) & (pixels < [camera.width, camera.height]).all(axis=1)
    return Projection(pixels, depths, inside)


def with_gaps_filled(
    points: SparsePoints, views: Sequence[View], up: Float64, generator: np.random.Generator
) -> SparsePoints:
    """The points, and behind them new ones wherever a photo shows something and has none.

    Args:
        points: sparse points; those that are not finite are left out.
        views: photos to be trained on. What is new for one is there for the next ones already.
        up: unit vector that points to the sky [3].
        generator: where in its part of the photo each new point lies.
    """
    usable = np.isfinite(points.xyz).all(axis=1)
    if usable.sum() < MIN_POINTS:
        return points
    xyz, rgb = points.xyz[usable], points.rgb[usable]
    reach = float(np.percentile(np.linalg.norm(xyz - np.median(xyz, axis=0), axis=1), 95))
    if reach == 0:  # all in one place: nothing says how far away anything is
        return points
    for view in views:
        seen = project(xyz, view.cameras[0])
        if seen.inside.sum() < FEWEST_POINTS:
            continue
        new_xyz, new_rgb = _gaps(
            view, seen.pixels[seen.inside], seen.depths[seen.inside], up, SKY_DISTANCE * reach, generator
        )
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
    side = max(camera.width, camera.height) / CELLS
    rows, columns = int(np.ceil(camera.height / side)), int(np.ceil(camera.width / side))
    taken = np.zeros((rows, columns), bool)
    taken[(pixels[:, 1] // side).astype(int), (pixels[:, 0] // side).astype(int)] = True
    cells = np.argwhere(~taken)[:, ::-1]  # [M, 2] column and row
    size = np.array([camera.width, camera.height])
    new = np.minimum((cells + generator.random(cells.shape)) * side, size - 0.5)  # [M, 2] px

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
