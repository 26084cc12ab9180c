"""Checks that the numbers of a COLMAP model are possible for cameras and points.

Readers take NaN, infinities, 1e300 and sizes of zero without a word, and what is computed from them fails elsewhere.
"""

from collections.abc import Sequence

import numpy as np
import pycolmap

from tasks.core.errors import FormatError
from tasks.core.transforms import Float64

LONGEST_SIDE_PX = 100_000
FOCAL_LENGTHS = (0.01, 1000.0)  # of the image's long side: a lens of 1500 mm on full frame has 42
FARTHEST_CENTER = 10.0  # of the principal point from the image's corner, in long sides
GREATEST_DISTORTION = 1e4
FARTHEST = 1e9  # in the model's units: coordinates of the Earth's centre in metres are below 1e7
ROTATION_ERROR = 1e-3
AGAIN = "Export the model again."


def check_numbers(model: pycolmap.Reconstruction) -> None:
    """Look at all cameras, and at poses, image points and points that the scene will be made of.

    Raises:
        FormatError: one of them is none, or beyond what is possible; the message says which.
    """
    for number, camera in sorted(model.cameras.items()):
        _check_camera(number, camera)
    for number in sorted(model.reg_image_ids()):
        _check_image(model.image(number))
    numbers = sorted(model.points3D)
    points = np.array([model.points3D[number].xyz for number in numbers], dtype=np.float64).reshape(-1, 3)
    if (bad := _first_beyond(points, FARTHEST)) is not None:
        raise FormatError(
            f"Point {numbers[bad]} of the model is at {_numbers(points[bad])}: no coordinate can be that. {AGAIN}"
        )


def _check_camera(number: int, camera: pycolmap.Camera) -> None:
    width, height = camera.width, camera.height
    if not (1 <= width <= LONGEST_SIDE_PX and 1 <= height <= LONGEST_SIDE_PX):
        raise FormatError(
            f"Camera {number} of the model has images of {width}x{height} px: between 1 and {LONGEST_SIDE_PX:,} px a "
            f"side are possible. {AGAIN}"
        )
    side = max(width, height)
    parameters = np.asarray(camera.params, dtype=np.float64)
    low, high = (limit * side for limit in FOCAL_LENGTHS)
    bounds = (
        ("focal length", camera.focal_length_idxs(), low, high),
        ("principal point", camera.principal_point_idxs(), -FARTHEST_CENTER * side, FARTHEST_CENTER * side),
        ("distortion", camera.extra_params_idxs(), -GREATEST_DISTORTION, GREATEST_DISTORTION),
    )
    for what, places, least, most in bounds:
        values = parameters[list(places)]
        if not ((values >= least) & (values <= most)).all():
            raise FormatError(
                f"Camera {number} of the model has the {what} {_numbers(values)}: between {least:g} and {most:g} are "
                f"possible for images of {width}x{height} px. {AGAIN}"
            )


def _check_image(image: pycolmap.Image) -> None:
    pose = np.asarray(image.cam_from_world().matrix(), dtype=np.float64)  # [3, 4]
    rotation = pose[:, :3]
    turned = np.isfinite(rotation).all() and np.abs(rotation @ rotation.T - np.eye(3)).max() <= ROTATION_ERROR
    if not turned or _first_beyond(pose[:, 3:].T, FARTHEST) is not None:
        raise FormatError(
            f"Image {image.image_id} of the model has a pose that is none: its rotation is no rotation, or it is at "
            f"{_numbers(pose[:, 3])}. {AGAIN}"
        )
    seen = np.array([point.xy for point in image.points2D], dtype=np.float64).reshape(-1, 2)
    if (bad := _first_beyond(seen, FARTHEST)) is not None:
        raise FormatError(
            f"Image {image.image_id} of the model has a point at {_numbers(seen[bad])} px: it cannot be there. {AGAIN}"
        )


def _first_beyond(rows: Float64, limit: float) -> int | None:
    """The first of the rows [N, C] with a value that is not finite or beyond the limit."""
    bad = ~(np.abs(rows) <= limit).all(axis=1)
    return int(np.argmax(bad)) if bad.any() else None


def _numbers(values: Sequence[float] | Float64) -> str:
    return ", ".join(f"{value:g}" for value in values)
