"""Photos of one camera at several zooms that EXIF does not tell: digital zoom, or a crop of the middle.

They would share one focal length, which bends the scene. Features of the same place are larger in a zoomed photo, by
the zoom's factor in every pair. Photos from nearer show that too, so two cameras are only tried, and kept if they place
the photos better.
"""

import copy
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pycolmap

from tasks.core.sfm.evidence import LEAST_MATCHES
from tasks.core.transforms import Float64

LEAST_STEP = np.log(1.12)  # of the size of features between two zooms
SPREAD_SHARE = 0.6  # of the step: the range of sizes within one zoom
FEWEST_PHOTOS = 5  # of a camera: fewer form groups by chance
LEAST_SQUARES_ERROR = 1e-9  # of the normal equations' right side, at which iterating ends
PHOTOS_FOR_ONE_ZOOM = 5  # of a camera, for each zoom beyond two: sizes that wander form many small groups


@dataclass(frozen=True)
class Zoomed:
    """Photos of one camera that show everything larger than its others."""

    camera: int  # number in the database
    images: tuple[int, ...]  # numbers of the zoomed ones
    factor: float  # of the focal length


def find_zoomed(database: Path) -> tuple[Zoomed, ...]:
    """Return the zoomed photos of each camera that has some, by the features that pairs agree on."""
    with pycolmap.Database.open(database) as known:
        cameras = {int(image.image_id): int(image.camera_id) for image in known.read_all_images()}
        sizes: dict[int, Float64] = {}
        steps: list[tuple[int, int, float]] = []
        for number, geometry in zip(*known.read_two_view_geometries(), strict=True):
            matches = np.asarray(geometry.inlier_matches)
            if len(matches) < LEAST_MATCHES:
                continue
            pair = tuple(int(i) for i in pycolmap.pair_id_to_image_pair(number))
            for i in pair:
                if i not in sizes:
                    shapes = np.asarray(known.read_keypoints(i), np.float64)[:, 2:].reshape(-1, 2, 2)
                    sizes[i] = np.log(np.maximum(np.abs(np.linalg.det(shapes)), 1e-12)) / 2
            first, second = pair
            step = np.median(sizes[second][matches[:, 1]] - sizes[first][matches[:, 0]])
            steps.append((first, second, float(step)))
    if not steps:
        return ()
    relative = _relative(steps)
    found: list[Zoomed] = []
    for camera in sorted(set(cameras.values())):
        of_camera = {i: size for i, size in relative.items() if cameras[i] == camera}
        found.extend(Zoomed(camera, images, factor) for images, factor in zoomed_groups(of_camera))
    return tuple(found)


def zoomed_groups(sizes: dict[int, float]) -> list[tuple[tuple[int, ...], float]]:
    """Return groups of photos that show everything larger, and by which factor; none if sizes form no clear groups.

    `sizes`: logarithms of how large photos show things.
    """
    images = sorted(sizes, key=lambda i: (sizes[i], i))
    values = np.array([sizes[i] for i in images])
    cuts = [0, *(np.flatnonzero(np.diff(values) >= LEAST_STEP) + 1), len(images)]
    groups = [slice(int(begin), int(end)) for begin, end in pairwise(cuts)]
    if len(images) < FEWEST_PHOTOS or not 2 <= len(groups) <= max(2, len(images) // PHOTOS_FOR_ONE_ZOOM):
        return []
    middles = np.array([np.median(values[group]) for group in groups])
    if max(np.ptp(values[group]) for group in groups) > SPREAD_SHARE * np.diff(middles).min():
        return []
    return [
        (tuple(sorted(images[group])), float(np.exp(middle - middles[0])))
        for group, middle in zip(groups[1:], middles[1:], strict=True)
    ]


def _relative(steps: list[tuple[int, int, float]]) -> dict[int, float]:
    """Return the logarithm of how large each photo shows things, up to a constant, by least squares over the pairs.

    Conjugate gradients on the normal equations, which have an entry for each pair: a matrix of all photos by all photos
    would take 200 MB and minutes for 5,000. They begin at 0, so that parts that no pair joins each have a mean of 0.
    """
    images = sorted({image for first, second, _ in steps for image in (first, second)})
    row = {image: i for i, image in enumerate(images)}
    first, second = np.array([row[a] for a, _, _ in steps]), np.array([row[b] for _, b, _ in steps])
    wanted = np.array([step for _, _, step in steps])

    def from_pairs(values: Float64) -> Float64:
        """Sums [N] of what pairs say of their second photo, less what they say of their first."""
        added = np.bincount(second, values, len(images)) - np.bincount(first, values, len(images))
        return np.asarray(added)

    solution = np.zeros(len(images))
    residual = from_pairs(wanted)
    direction, left = residual.copy(), float(residual @ residual)
    enough = left * LEAST_SQUARES_ERROR**2
    for _ in range(2 * len(images)):
        if left <= enough:
            break
        changed = from_pairs(direction[second] - direction[first])
        step = left / float(direction @ changed)
        solution += step * direction
        residual -= step * changed
        before, left = left, float(residual @ residual)
        direction = residual + left / before * direction
    return {image: float(solution[row[image]]) for image in images}


def split_cameras(database: Path, zoomed: tuple[Zoomed, ...], options: pycolmap.TwoViewGeometryOptions) -> None:
    """Enter a camera of its own for the zoomed photos of each camera, and verify all pairs again."""
    moved: list[tuple[int, int, int]] = []
    with pycolmap.Database.open(database) as known:
        for group in zoomed:
            camera = copy.deepcopy(known.read_camera(group.camera))
            camera.focal_length = camera.mean_focal_length() * group.factor
            camera.camera_id = known.write_camera(camera)
            rig = pycolmap.Rig()
            rig.add_ref_sensor(camera.sensor_id)
            rig_id = known.write_rig(rig)
            moved.extend((camera.camera_id, rig_id, number) for number in group.images)
    with closing(sqlite3.connect(database)) as connection:  # pycolmap checks image and frame against each other
        for camera_id, rig_id, number in moved:
            of_image = "frame_id in (select frame_id from frame_data where data_id = ?)"
            connection.execute(f"update frames set rig_id = ? where {of_image}", (rig_id, number))
            connection.execute("update frame_data set sensor_id = ? where data_id = ?", (camera_id, number))
            connection.execute("update images set camera_id = ? where image_id = ?", (camera_id, number))
        connection.execute("delete from two_view_geometries")
        connection.commit()
    pycolmap.geometric_verification(database, two_view_geometry_options=options)
