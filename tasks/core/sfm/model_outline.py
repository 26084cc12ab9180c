"""Read cameras and images of a COLMAP model without pycolmap, within a second, before a run begins.

Points and tracks are skipped. Layout: https://colmap.github.io/format.html. Names of text models are read to the end of
their line: pycolmap ends them at the first space.
"""

import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tasks.core.errors import FormatError
from tasks.core.safe_names import reason

SUFFIXES = (".bin", ".txt")  # in the order in which COLMAP looks for them
PARTS = ("cameras", "images", "points3D")
OPTIONAL_PARTS = ("rigs", "frames")

# COLMAP's camera models by their numbers in cameras.bin, and how many parameters they have.
CAMERA_MODELS = (
    *(("SIMPLE_PINHOLE", 3), ("PINHOLE", 4), ("SIMPLE_RADIAL", 4), ("RADIAL", 5), ("OPENCV", 8)),
    *(("OPENCV_FISHEYE", 8), ("FULL_OPENCV", 12), ("FOV", 5), ("SIMPLE_RADIAL_FISHEYE", 4), ("RADIAL_FISHEYE", 5)),
    *(("THIN_PRISM_FISHEYE", 12), ("RAD_TAN_THIN_PRISM_FISHEYE", 16), ("SIMPLE_DIVISION", 4), ("DIVISION", 5)),
    *(("SIMPLE_FISHEYE", 3), ("FISHEYE", 4), ("EUCM", 6), ("EQUIRECTANGULAR", 2)),
)
COUNT, CAMERA_HEAD, IMAGE_HEAD = struct.Struct("<Q"), struct.Struct("<IiQQ"), struct.Struct("<I7dI")
PARAMETER_BYTES, POINT2D_BYTES, LEAST_POINT3D_BYTES = 8, 24, 51
NAME_BYTES = 64  # read at once; a name that is longer takes several reads
LONGEST_NAME_BYTES = 4096
LONGEST_IMAGE_LINE_BYTES = 1024
MOST_NUMBER = 2**32 - 2
NUMBERS_OF_AN_IMAGE = 9  # in a line of images.txt, before its name


@dataclass(frozen=True)
class OutlineCamera:
    """A camera of a model. Sizes are None where its images decide."""

    model: str
    width: int | None
    height: int | None


@dataclass(frozen=True)
class Outline:
    """Cameras and images of a model, by their numbers in it."""

    cameras: dict[int, OutlineCamera]
    names: dict[int, str]  # of images, as the model has them
    camera_of: dict[int, int]  # by image
    points: int  # 0 if there are none


def model_suffix(folder: Path) -> str | None:
    """Return the suffix of the complete model in a folder; None if there is none."""
    return next((each for each in SUFFIXES if all((folder / f"{part}{each}").is_file() for part in PARTS)), None)


def read_outline(folder: Path) -> Outline:
    """Read the outline of the complete model in a folder. Raises FormatError if it ends too early or is none."""
    suffix = model_suffix(folder)
    assert suffix is not None
    if suffix == ".bin":
        return _binary(folder)
    try:
        return _text(folder)
    except (ValueError, IndexError, OverflowError) as error:
        raise FormatError(f"{folder} is not a complete COLMAP model: {reason(error)}.") from error


def utf8_name(name: bytes, number: int) -> str:
    """Return an image's name. Raises FormatError where it is not UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise FormatError(
            f"The name of image {number} in the model is not UTF-8 ({error.reason}): rename the photo and export the "
            "model again."
        ) from error


def _binary(folder: Path) -> Outline:
    cameras: dict[int, OutlineCamera] = {}
    with _whole(folder / "cameras.bin") as file:
        for _ in range(_count(file)):
            number, kind, width, height = CAMERA_HEAD.unpack(file.read(CAMERA_HEAD.size))
            if not 0 <= kind < len(CAMERA_MODELS):
                raise FormatError(f"Camera {number} of the model is of kind {kind}, which COLMAP 4 does not know.")
            model, parameters = CAMERA_MODELS[kind]
            _skip(file, PARAMETER_BYTES * parameters)
            cameras[number] = OutlineCamera(model, width, height)
    names: dict[int, str] = {}
    camera_of: dict[int, int] = {}
    with _whole(folder / "images.bin") as file:
        for _ in range(_count(file)):
            number, *_, camera = IMAGE_HEAD.unpack(file.read(IMAGE_HEAD.size))
            names[number], camera_of[number] = utf8_name(_name(file), number), camera
            _skip(file, POINT2D_BYTES * _count(file))
    with _whole(folder / "points3D.bin") as file:
        points = _count(file)
        if COUNT.size + points * LEAST_POINT3D_BYTES > (folder / "points3D.bin").stat().st_size:
            raise struct.error("fewer points than announced")
    return Outline(cameras, names, camera_of, points)


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file of a model. Raises FormatError where an entry ends behind the file."""
    try:
        with path.open("rb") as file:
            yield file
    except (struct.error, EOFError) as error:
        raise FormatError(
            f"{path.name} is not complete or not COLMAP's: it announces more than its {path.stat().st_size} bytes "
            "contain. Copy or export the model again."
        ) from error


def _skip(file: IO[bytes], size_bytes: int) -> None:
    """Go on behind so many bytes. Raises EOFError where the file ends before."""
    end = file.tell() + size_bytes
    if end > os.fstat(file.fileno()).st_size:
        raise EOFError("an entry ends behind the file")
    file.seek(end)


def _count(file: IO[bytes]) -> int:
    return int(COUNT.unpack(file.read(COUNT.size))[0])


def _name(file: IO[bytes]) -> bytes:
    """Read a name to the zero byte that ends it."""
    name = b""
    while b"\0" not in name:
        more = file.read(NAME_BYTES)
        if not more or len(name) > LONGEST_NAME_BYTES:
            raise EOFError("a name does not end")
        name += more
    ended, _, behind = name.partition(b"\0")
    file.seek(-len(behind), os.SEEK_CUR)
    return ended


def _text(folder: Path) -> Outline:
    cameras: dict[int, OutlineCamera] = {}
    for line in _lines(folder / "cameras.txt"):
        camera, model, width, height = line.split()[:4]
        cameras[_number(camera)] = OutlineCamera(model.decode("ascii", "replace"), int(width), int(height))
    names: dict[int, str] = {}
    camera_of: dict[int, int] = {}
    with (folder / "images.txt").open("rb") as file:
        for raw in file:
            line = raw.strip()
            if not line or line.startswith(b"#"):
                continue
            *numbers, name = line.split(maxsplit=NUMBERS_OF_AN_IMAGE)
            if len(numbers) < NUMBERS_OF_AN_IMAGE:
                raise ValueError(f"an image of images.txt has {len(numbers)} numbers, and not {NUMBERS_OF_AN_IMAGE}")
            number = _number(numbers[0])
            names[number], camera_of[number] = utf8_name(name, number), _number(numbers[-1])
            seen = file.readline()  # points of the image: empty where there are none
            if len(seen) <= LONGEST_IMAGE_LINE_BYTES and _is_image(seen.split(maxsplit=NUMBERS_OF_AN_IMAGE)):
                raise FormatError(
                    f"images.txt has no line of points after image {number}: each image has two lines, of which the "
                    "second may be empty. Export the model again."
                )
    points = sum(1 for _ in _lines(folder / "points3D.txt"))
    return Outline(cameras, names, camera_of, points)


def _number(word: bytes) -> int:
    """Return the number of a camera or image. Raises ValueError for what is none."""
    number = int(word)
    if not 0 <= number <= MOST_NUMBER:
        raise ValueError(f"{number} is no number of a camera or an image")
    return number


def _is_image(words: list[bytes]) -> bool:
    """Whether a line that should contain points is of the next image, whose name is no number."""
    return len(words) == NUMBERS_OF_AN_IMAGE + 1 and re.fullmatch(rb"[-+.\deE\s]+", words[-1]) is None


def _lines(path: Path) -> Iterator[bytes]:
    """Lines with content, without comments."""
    with path.open("rb") as file:
        for raw in file:
            line = raw.strip()
            if line and not line.startswith(b"#"):
                yield line
