"""Checks of a user's own COLMAP model: binary files as long as they say, and numbers that are possible.

pycolmap believes the counts in a file: a points3D.bin that was cut off made it fill the memory for two minutes, a
cameras.bin that was cut off was read without a warning. Layout: https://colmap.github.io/format.html#binary-file-format
It also accepts NaN, infinities, 1e300 and sizes of zero, and what is computed from them fails elsewhere.
"""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pycolmap

from tasks.core.errors import FormatError
from tasks.core.transforms import Float64

POINT2D_BYTES = 24  # x, y, point3D id
TRACK_ELEMENT_BYTES = 8
POINT3D_HEAD = struct.Struct("<q3d3BdQ")
CAMERA_HEAD = struct.Struct("<IiQQ")
IMAGE_HEAD = struct.Struct("<I7dI")
COUNT = struct.Struct("<Q")
FRAME_HEAD = struct.Struct("<II7dI")
FRAME_DATA_BYTES = 16  # sensor type and id, data id
RIG_HEAD = struct.Struct("<II")
SENSOR_HEAD = struct.Struct("<iI")
POSED_SENSOR_HEAD = struct.Struct("<iIB")  # and whether a pose follows
POSE_BYTES = 56

LONGEST_SIDE_PX = 100_000
FOCAL_LENGTHS = (0.01, 1000.0)  # of the image's long side: a lens of 1500 mm on full frame has 42
FARTHEST_CENTER = 10.0  # of the principal point from the image's corner, in long sides
GREATEST_DISTORTION = 1e4
FARTHEST = 1e9  # in the model's units: coordinates of the Earth's centre in metres are below 1e7
ROTATION_ERROR = 1e-3
AGAIN = "Export the model again."


def check_binary_model(folder: Path) -> None:
    """Walk through the binary files of a model that exist.

    Raises:
        FormatError: a file ends before or after its last entry.
    """
    walks = {
        "cameras.bin": _camera_end,
        "images.bin": _image_end,
        "points3D.bin": _point_end,
        "frames.bin": _frame_end,
        "rigs.bin": _rig_end,
    }
    for name, entry_end in walks.items():
        if (folder / name).is_file():
            _check(folder / name, entry_end)


def _check(path: Path, entry_end: Callable[[bytes, int], int]) -> None:
    data = path.read_bytes()
    entries, read = 0, 0
    try:
        (entries,) = COUNT.unpack_from(data)
        position = COUNT.size
        while read < entries:
            position = entry_end(data, position)
            read += 1
        complete = position == len(data)
    except (struct.error, ValueError):  # bytes.index raises ValueError where a name does not end
        complete = False
    if not complete:
        raise FormatError(
            f"{path.name} is not complete or not COLMAP's: it announces {entries} entries, and its {len(data)} bytes "
            f"do not end after them (looked at {read}). Copy or export the model again."
        )


def _camera_end(data: bytes, position: int) -> int:
    _, model, _, _ = CAMERA_HEAD.unpack_from(data, position)
    parameters = len(pycolmap.Camera.create_from_model_id(1, pycolmap.CameraModelId(model), 1.0, 1, 1).params)
    end = position + CAMERA_HEAD.size + 8 * parameters
    return _within(data, end)


def _image_end(data: bytes, position: int) -> int:
    IMAGE_HEAD.unpack_from(data, position)
    name_end = data.index(b"\0", position + IMAGE_HEAD.size) + 1
    (points,) = COUNT.unpack_from(data, name_end)
    return _within(data, name_end + COUNT.size + points * POINT2D_BYTES)


def _point_end(data: bytes, position: int) -> int:
    track_length = POINT3D_HEAD.unpack_from(data, position)[-1]
    return _within(data, position + POINT3D_HEAD.size + track_length * TRACK_ELEMENT_BYTES)


def _frame_end(data: bytes, position: int) -> int:
    entries = FRAME_HEAD.unpack_from(data, position)[-1]
    return _within(data, position + FRAME_HEAD.size + entries * FRAME_DATA_BYTES)


def _rig_end(data: bytes, position: int) -> int:
    _, sensors = RIG_HEAD.unpack_from(data, position)
    position += RIG_HEAD.size
    for number in range(sensors):
        if number == 0:  # the others have a pose relative to it
            position = _within(data, position + SENSOR_HEAD.size)
        else:
            *_, posed = POSED_SENSOR_HEAD.unpack_from(data, position)
            position = _within(data, position + POSED_SENSOR_HEAD.size + (POSE_BYTES if posed else 0))
    return position


def _within(data: bytes, end: int) -> int:
    if end > len(data):
        raise ValueError("the entry ends behind the file")
    return int(end)


def check_numbers(model: pycolmap.Reconstruction) -> None:
    """Check all cameras, and the poses, image points and points that the scene is made of.

    Raises:
        FormatError: one of them is not a number or not possible; the message names it.
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
    """Return the first of the rows [N, C] with a value that is not finite or beyond the limit."""
    bad = ~(np.abs(rows) <= limit).all(axis=1)
    return int(np.argmax(bad)) if bad.any() else None


def _numbers(values: Sequence[float] | Float64) -> str:
    return ", ".join(f"{value:g}" for value in values)
