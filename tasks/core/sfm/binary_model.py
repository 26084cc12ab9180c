"""Whether COLMAP's binary files are as long as they say.

pycolmap believes their counts: a points3D.bin that was cut off made it fill the memory for two minutes, a cameras.bin
that was cut off was read without a word. Layout: https://colmap.github.io/format.html#binary-file-format
"""

import struct
from collections.abc import Callable
from pathlib import Path

import pycolmap

from tasks.core.errors import FormatError

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


def check_binary_model(folder: Path) -> None:
    """Walk through the binary files of a model, those that exist.

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
        if number == 0:  # all others are posed against it
            position = _within(data, position + SENSOR_HEAD.size)
        else:
            *_, posed = POSED_SENSOR_HEAD.unpack_from(data, position)
            position = _within(data, position + POSED_SENSOR_HEAD.size + (POSE_BYTES if posed else 0))
    return position


def _within(data: bytes, end: int) -> int:
    if end > len(data):
        raise ValueError("the entry ends behind the file")
    return int(end)
