"""Features and matches of a flight, simulated: a database as after matching, and the cameras that are right.

`python -m tests.core.sfm.simulated_flight FOLDER PHOTOS` writes one with as many photos as wanted, in seconds.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tasks.core.transforms import Float64

WIDTH, HEIGHT, FOCAL_PX = 640, 480, 640 * 24 / 36
HEIGHT_M, ALONG_M, BETWEEN_M = 45.0, 12.0, 16.0  # above the ground, along a line, between lines
DETECTED, MATCHED = 0.6, 0.75  # shares of the points in view, and of those that two photos both show
NOISE_PX = 0.5
NEIGHBOURS = 12
DOWN = np.diag([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class SimulatedFlight:
    """What was written."""

    database: Path
    names: tuple[str, ...]
    rotations: Float64  # [N, 3, 3] world to camera
    centers: Float64  # [N, 3] in metres


def write_simulated_flight(folder: Path, photos: int, *, features: int = 900, seed: int = 0) -> SimulatedFlight:
    """Write `database.db` into a folder: a lawnmower flight over hills and boxes.

    `features` is what a photo shows of them, about.
    """
    generator = np.random.default_rng(seed)
    columns = max(1, round(np.sqrt(photos * BETWEEN_M / ALONG_M)))
    grid = [
        (k if row % 2 == 0 else columns - 1 - k, row) for row in range(-(-photos // columns)) for k in range(columns)
    ]
    xy = np.array(grid[:photos]) * (ALONG_M, BETWEEN_M) + generator.normal(0, 0.7, (photos, 2))
    centers = np.column_stack([xy, HEIGHT_M + generator.normal(0, 0.5, photos)])
    headings = np.array([180.0 * (row % 2) for _, row in grid[:photos]]) + generator.normal(0, 3, photos)
    tilts = generator.normal(0, 4, (photos, 2))
    rotations = Rotation.from_euler("xyz", np.column_stack([tilts, headings]), degrees=True).as_matrix() @ DOWN
    seen, pixels = _projected(generator, centers, rotations, features)
    names = tuple(f"{i:06d}.jpg" for i in range(1, photos + 1))
    database = folder / "database.db"
    folder.mkdir(parents=True, exist_ok=True)
    pycolmap.Database.open(database).close()
    near = cKDTree(xy).query(xy, min(NEIGHBOURS + 1, photos))[1]
    pairs = sorted({(min(i, int(j)), max(i, int(j))) for i in range(photos) for j in near[i, 1:]})
    with pycolmap.Database.open(database) as written:
        numbers = _enter(written, names, pixels)
        for a, b in pairs:
            _, first, second = np.intersect1d(seen[a], seen[b], assume_unique=True, return_indices=True)
            kept = generator.random(len(first)) < MATCHED
            matches = np.column_stack([first[kept], second[kept]]).astype(np.uint32)
            if len(matches) >= 15:
                written.write_matches(numbers[a], numbers[b], matches)
                relative = rotations[b] @ rotations[a].T, rotations[b] @ (centers[a] - centers[b])
                written.write_two_view_geometry(numbers[a], numbers[b], _geometry(matches, *relative))
    return SimulatedFlight(database, names, rotations, centers)


def _projected(
    generator: np.random.Generator, centers: Float64, rotations: Float64, features: int
) -> tuple[list[np.ndarray], list[Float64]]:
    """For each photo the numbers of the points it shows, sorted, and where."""
    low, high = centers[:, :2].min(axis=0) - 60, centers[:, :2].max(axis=0) + 60
    in_view = WIDTH * HEIGHT / FOCAL_PX**2 * HEIGHT_M**2
    count = int(features / DETECTED / in_view * np.prod(high - low))
    x, y = generator.uniform(low, high, (count, 2)).T
    boxes = np.where(generator.random(count) < 0.25, generator.uniform(0, 8, count), 0)
    points = np.column_stack([x, y, 4 * np.sin(x / 23) * np.cos(y / 31) + boxes])
    tree, seen, pixels = cKDTree(points[:, :2]), [], []
    for center, rotation in zip(centers, rotations, strict=True):
        near = np.sort(np.array(tree.query_ball_point(center[:2], 75.0), np.int64))
        there = (points[near] - center) @ rotation.T
        xy = there[:, :2] / there[:, 2:] * FOCAL_PX + (WIDTH / 2, HEIGHT / 2)
        shown = (there[:, 2] > 1) & (xy > 0).all(axis=1) & (xy < (WIDTH, HEIGHT)).all(axis=1)
        shown &= generator.random(len(near)) < DETECTED
        seen.append(near[shown])
        pixels.append(xy[shown] + generator.normal(0, NOISE_PX, (int(shown.sum()), 2)))
    return seen, pixels


def _enter(database: pycolmap.Database, names: tuple[str, ...], pixels: list[Float64]) -> list[int]:
    lens = [1.01 * FOCAL_PX, WIDTH / 2, HEIGHT / 2, 0.0]
    camera = pycolmap.Camera(model="SIMPLE_RADIAL", width=WIDTH, height=HEIGHT, params=lens)
    camera.has_prior_focal_length = True
    camera.camera_id = database.write_camera(camera)
    rig = pycolmap.Rig()
    rig.add_ref_sensor(camera.sensor_id)
    rig_id = database.write_rig(rig)
    numbers = []
    for name, xy in zip(names, pixels, strict=True):
        image = pycolmap.Image(name=name, camera_id=camera.camera_id)
        image.image_id = database.write_image(image)
        frame = pycolmap.Frame(rig_id=rig_id)
        frame.add_data_id(image.data_id)
        database.write_frame(frame)
        shapes = np.tile([2.0, 0.0], (len(xy), 1))
        database.write_keypoints(image.image_id, np.column_stack([xy, shapes]).astype(np.float32))
        numbers.append(image.image_id)
    return numbers


def _geometry(matches: np.ndarray, rotation: Float64, shift: Float64) -> pycolmap.TwoViewGeometry:
    geometry = pycolmap.TwoViewGeometry()
    geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
    geometry.inlier_matches = matches
    x, y, z = shift
    geometry.E = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation
    geometry.cam2_from_cam1 = pycolmap.Rigid3d(np.column_stack([rotation, shift]))
    return geometry


if __name__ == "__main__":
    write_simulated_flight(Path(sys.argv[1]), int(sys.argv[2]))
