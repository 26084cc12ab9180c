"""Photos of one camera at several zooms that EXIF does not tell: digital zoom, or a crop of the middle.

They would share one focal length, which bends the scene. Features of the same place are larger in a zoomed photo, by
the zoom's factor in every pair. Photos from nearer show that too, so two cameras are only tried, and kept if they place
the photos better.
"""

import copy
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from tasks.core.sfm.evidence import LEAST_MATCHES
from tasks.core.transforms import Float64

LEAST_STEP = np.log(1.15)  # of the size of features between two zooms
SPREAD_SHARE = 0.3  # of the step, by which sizes of photos of one zoom deviate at most, half of their range
FEWEST_PHOTOS = 3  # at each zoom


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
    found = []
    for camera in sorted(set(cameras.values())):
        images = sorted((i for i in relative if cameras[i] == camera), key=lambda i: relative[i])
        values = np.array([relative[i] for i in images])
        if len(images) < 2 * FEWEST_PHOTOS:
            continue
        gaps = np.diff(values)
        cut = FEWEST_PHOTOS + int(np.argmax(gaps[FEWEST_PHOTOS - 1 : len(gaps) - FEWEST_PHOTOS + 1]))
        plain, zoomed = values[:cut], values[cut:]
        step = float(np.median(zoomed) - np.median(plain))
        spread = max(float(np.ptp(part)) / 2 for part in (plain, zoomed))
        if step >= LEAST_STEP and spread <= SPREAD_SHARE * step:
            found.append(Zoomed(camera, tuple(sorted(images[cut:])), float(np.exp(step))))
    return tuple(found)


def _relative(steps: list[tuple[int, int, float]]) -> dict[int, float]:
    """Return the logarithm of how large each photo shows things, up to a constant, by least squares over the pairs."""
    images = sorted({image for first, second, _ in steps for image in (first, second)})
    row = {image: i for i, image in enumerate(images)}
    normal, right = np.zeros((len(images), len(images))), np.zeros(len(images))
    for first, second, step in steps:
        a, b = row[first], row[second]
        normal[[a, b], [a, b]] += 1
        normal[[a, b], [b, a]] -= 1
        right[a] -= step
        right[b] += step
    solution = np.linalg.lstsq(normal, right, rcond=None)[0]
    return {image: float(solution[row[image]]) for image in images}


def split_cameras(database: Path, zoomed: tuple[Zoomed, ...], options: pycolmap.TwoViewGeometryOptions) -> None:
    """Enter a camera of its own for the zoomed photos of each camera, and verify all pairs again."""
    with pycolmap.Database.open(database) as known:
        for group in zoomed:
            camera = copy.deepcopy(known.read_camera(group.camera))
            camera.focal_length = camera.mean_focal_length() * group.factor
            camera.camera_id = known.write_camera(camera)
            rig = pycolmap.Rig()
            rig.add_ref_sensor(camera.sensor_id)
            rig_id = known.write_rig(rig)
            for number in group.images:
                image = known.read_image(number)
                image.camera_id = camera.camera_id
                known.update_image(image)
                frame = pycolmap.Frame(rig_id=rig_id)
                frame.add_data_id(image.data_id)
                frame.frame_id = image.frame_id
                known.update_frame(frame)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("delete from two_view_geometries")
        connection.commit()
    pycolmap.geometric_verification(database, two_view_geometry_options=options)
