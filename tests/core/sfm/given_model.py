"""A small COLMAP model of three cameras, to be damaged."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
from PIL import Image

from tasks.core.measurements import SfmSection
from tasks.core.scene import Scene
from tasks.core.sfm.importer import import_in_worker
from tasks.core.sfm.worker import WORK_FOLDER, ImportJob

WIDTH, HEIGHT = 64, 48
COUNT = 3
POINTS = 24
PARAMETERS = {"PINHOLE": [60.0, 60.0, 32.0, 24.0], "SIMPLE_RADIAL": [60.0, 32.0, 24.0, 0.01]}


def small_model(camera_model: str = "PINHOLE", count: int = COUNT) -> pycolmap.Reconstruction:
    """Cameras in a row, three of them or more, that see 24 points."""
    model = pycolmap.Reconstruction()
    parameters = PARAMETERS[camera_model]
    camera = pycolmap.Camera(camera_id=1, model=camera_model, width=WIDTH, height=HEIGHT, params=parameters)
    model.add_camera_with_trivial_rig(camera)
    points = np.array([(x, y, 5 + x) for x in (-1.0, 1) for y in (-1.0, 1) for _ in range(POINTS // 4)])
    for number in range(1, count + 1):
        shift = np.array([0.3 * number, 0.1 * (number == 2), 0])
        rays = (points + shift)[:, :2] / (points + shift)[:, 2:]
        seen = camera.img_from_cam(np.column_stack([rays, np.ones(len(rays))]))
        image = pycolmap.Image(f"{number}.jpg", seen, 1, number)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(np.column_stack([np.eye(3), shift])))
    for i, xyz in enumerate(points):
        track = pycolmap.Track()
        for number in range(1, count + 1):
            track.add_element(number, i)
        model.add_point3D(xyz, track, np.array([200, 100, 50], np.uint8))
    return model


def write_given(
    folder: Path, *, text: bool = False, camera_model: str = "PINHOLE", count: int = COUNT, home: str = "sparse/0"
) -> Path:
    """Write the model's files and `images`; returns the folder of the model's files."""
    place = folder / home
    place.mkdir(parents=True, exist_ok=True)
    model = small_model(camera_model, count)
    (model.write_text if text else model.write_binary)(place)
    write_images(folder / "images", count)
    return place


def write_images(folder: Path, count: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """Write the images `1.jpg`, `2.jpg`, … of a size in px."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        pixels = np.random.default_rng(number).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")


def scene_of(place: Path, out: Path, image_size: int = WIDTH) -> tuple[SfmSection, Scene]:
    """What the worker makes of a given model, in this process; images that are to be undistorted are not written."""
    (out / WORK_FOLDER).mkdir(parents=True)
    section = import_in_worker(ImportJob(source=place.resolve(), out=out, image_size=image_size))
    return section, Scene.load(out)


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Replace a file's content."""
    path.write_bytes(change(path.read_bytes()))


def put(form: str, at: int, value: float) -> Callable[[bytes], bytes]:
    """A change that packs a value over the bytes from a position on."""
    packed = struct.pack(form, value)
    return lambda data: data[:at] + packed + data[at + len(packed) :]


def rewritten(home: Path, change: Callable[[pycolmap.Reconstruction], None]) -> None:
    """Change the model in a folder."""
    model = pycolmap.Reconstruction(home)
    change(model)
    model.write_binary(home)
