"""Models with numbers that no camera and no point can have are refused in a sentence that says which."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from tasks.core.errors import FormatError
from tasks.core.progress import ignore_progress
from tasks.core.scene import Scene
from tasks.core.sfm.import_model import import_model
from tasks.core.sfm.importer import read_model
from tasks.core.sfm.model_checks import check_numbers
from tests.core.sfm.given_model import COUNT, HEIGHT, WIDTH, edit, put, small_model, write_given

# Positions in the files of COLMAP's format, behind 8 bytes with the number of entries.
CAMERA_WIDTH, CAMERA_FOCAL, CAMERA_CENTER = 8 + 8, 8 + 24, 8 + 24 + 16
FRAME_ROTATION, FRAME_TRANSLATION = 8 + 8, 8 + 8 + 32  # which newer versions take in place of the images' own
POINT_XYZ = 8 + 8
BAD = [float("nan"), float("inf"), -float("inf"), 1e300]


def refused(home: Path) -> str:
    with pytest.raises(FormatError) as caught:
        check_numbers(read_model(home))
    return str(caught.value)


@pytest.mark.parametrize("value", [*BAD, 0.0, -60.0, 1e-9, 1e7])
def test_a_focal_length_that_is_none(value: float, tmp_path: Path) -> None:
    home = write_given(tmp_path)
    edit(home / "cameras.bin", put("<d", CAMERA_FOCAL, value))
    assert refused(home) == (
        f"Camera 1 of the model has the focal length {value:g}, 60: between 0.64 and 64000 are possible for images of "
        "64x48 px. Export the model again."
    )


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize(
    ("file", "at", "says"),
    [
        ("cameras.bin", CAMERA_CENTER, "Camera 1 of the model has the principal point"),
        ("frames.bin", FRAME_TRANSLATION, "Image 1 of the model has a pose that is none"),
        ("points3D.bin", POINT_XYZ, "Point 1 of the model is at"),
    ],
)
def test_other_numbers_that_are_none(file: str, at: int, says: str, value: float, tmp_path: Path) -> None:
    home = write_given(tmp_path)
    edit(home / file, put("<d", at, value))
    assert says in refused(home)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])  # others are scaled to length 1
def test_a_rotation_that_is_none(value: float, tmp_path: Path) -> None:
    home = write_given(tmp_path)
    edit(home / "frames.bin", put("<d", FRAME_ROTATION, value))
    assert "Image 1 of the model has a pose that is none: its rotation is no rotation" in refused(home)


@pytest.mark.parametrize("value", [0, 2**40, 2**64 - 1])
def test_a_size_that_no_image_has(value: int, tmp_path: Path) -> None:
    home = write_given(tmp_path)
    edit(home / "cameras.bin", put("<Q", CAMERA_WIDTH, value))
    assert f"images of {value}x{HEIGHT} px: between 1 and 100,000 px a side are possible" in refused(home)


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("cameras.txt", "0.01", "1e300", "has the distortion 1e+300"),
        ("cameras.txt", "60 32", "-60 32", "has the focal length -60"),
        ("cameras.txt", "64 48", "0 48", "0x48 px"),
        ("points3D.txt", "-1 -1 4", "-1 1e300 4", "Point 1 of the model is at -1, 1e+300, 4"),
        ("points3D.txt", "-1 -1 4", "-1 nan 4", "is not a complete COLMAP model"),  # C++ reads no NaN
    ],
)
def test_text_says_the_same(file: str, old: str, new: str, says: str, tmp_path: Path) -> None:
    home = write_given(tmp_path, text=True, camera_model="SIMPLE_RADIAL")
    text = (home / file).read_text()
    assert old in text
    (home / file).write_text(text.replace(old, new, 1))
    assert says in refused(home)


def test_a_camera_that_no_image_uses_is_looked_at_too(tmp_path: Path) -> None:
    """All cameras are undistorted, those without images as well."""
    home = write_given(tmp_path, text=True)
    with (home / "cameras.txt").open("a") as file:
        file.write(f"2 SIMPLE_RADIAL {2**40} 48 60 32 24 0.1\n")
    with (home / "rigs.txt").open("a") as file:
        file.write("2 1 CAMERA 2\n")
    assert "Camera 2 of the model has images of 1099511627776x48 px" in refused(home)


def test_the_worker_says_it_and_writes_nothing(tmp_path: Path) -> None:
    home = write_given(tmp_path / "given")
    edit(home / "cameras.bin", put("<d", CAMERA_FOCAL, float("nan")))
    with pytest.raises(FormatError, match="Camera 1 of the model has the focal length nan, 60"):
        import_model(tmp_path / "given", tmp_path / "out", WIDTH, ignore_progress)
    assert not (tmp_path / "out/scene.json").exists()


def test_a_model_that_is_good_passes(tmp_path: Path) -> None:
    check_numbers(read_model(write_given(tmp_path)))


@pytest.mark.parametrize("camera_model", ["PINHOLE", "SIMPLE_RADIAL"])
def test_a_damaged_image_is_named(camera_model: str, tmp_path: Path) -> None:
    """Of a model that is ready the image was copied as it is, and training failed with an OSError, four times."""
    write_given(tmp_path / "given", camera_model=camera_model)
    edit(tmp_path / "given/images/2.jpg", lambda data: data[: len(data) // 2])
    with pytest.raises(FormatError, match=r"'2\.jpg': damaged or cut off \(.*truncated.*\)\. Copy it again"):
        import_model(tmp_path / "given", tmp_path / "out", WIDTH, ignore_progress)


@pytest.mark.parametrize("part", ["frames.bin", "rigs.bin"])
@pytest.mark.parametrize("change", ["cut", "count"])
def test_rigs_and_frames_are_as_long_as_they_say(part: str, change: str, tmp_path: Path) -> None:
    home = write_given(tmp_path)
    changes: dict[str, Callable[[bytes], bytes]] = {
        "cut": lambda data: data[:-5],
        "count": lambda data: struct.pack("<Q", 2**40) + data[8:],
    }
    edit(home / part, changes[change])
    with pytest.raises(FormatError, match=f"{part} is not complete"):
        read_model(home)


def test_rigs_of_several_cameras_are_read(tmp_path: Path) -> None:
    model = small_model()
    model.add_camera(pycolmap.Camera(camera_id=2, model="PINHOLE", width=WIDTH, height=HEIGHT, params=[60, 60, 32, 24]))
    model.add_camera(pycolmap.Camera(camera_id=3, model="PINHOLE", width=WIDTH, height=HEIGHT, params=[60, 60, 32, 24]))
    rig = pycolmap.Rig(rig_id=2)
    rig.add_ref_sensor(model.camera(2).sensor_id)
    rig.add_sensor(model.camera(3).sensor_id, pycolmap.Rigid3d(np.eye(3, 4)))
    model.add_rig(rig)
    home = write_given(tmp_path)
    model.write_binary(home)
    assert len(read_model(home).rigs) == 2
    section = import_model(tmp_path, tmp_path / "out", WIDTH, ignore_progress)
    assert section.registered == len(Scene.load(tmp_path / "out").cameras) == COUNT
