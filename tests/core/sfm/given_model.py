"""A small COLMAP model of three cameras, to be damaged."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
from PIL import Image

WIDTH, HEIGHT = 64, 48
COUNT = 3
PARAMETERS = {"PINHOLE": [60.0, 60.0, 32.0, 24.0], "SIMPLE_RADIAL": [60.0, 32.0, 24.0, 0.01]}


def small_model(camera_model: str = "PINHOLE") -> pycolmap.Reconstruction:
    """Three cameras in a row that see eight points."""
    model = pycolmap.Reconstruction()
    parameters = PARAMETERS[camera_model]
    camera = pycolmap.Camera(camera_id=1, model=camera_model, width=WIDTH, height=HEIGHT, params=parameters)
    model.add_camera_with_trivial_rig(camera)
    points = np.array([(x, y, 5 + x) for x in (-1.0, 1) for y in (-1.0, 1) for _ in (0, 1)])
    for number in range(1, COUNT + 1):
        shift = np.array([0.3 * number, 0.1 * (number == 2), 0])
        rays = (points + shift)[:, :2] / (points + shift)[:, 2:]
        seen = camera.img_from_cam(np.column_stack([rays, np.ones(len(rays))]))
        image = pycolmap.Image(f"{number}.jpg", seen, 1, number)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(np.column_stack([np.eye(3), shift])))
    for i, xyz in enumerate(points):
        track = pycolmap.Track()
        for number in range(1, COUNT + 1):
            track.add_element(number, i)
        model.add_point3D(xyz, track, np.array([200, 100, 50], np.uint8))
    return model


def write_given(folder: Path, *, text: bool = False, camera_model: str = "PINHOLE") -> Path:
    """Write `sparse/0` and `images`; returns the folder of the model's files."""
    home = folder / "sparse/0"
    home.mkdir(parents=True)
    (folder / "images").mkdir()
    model = small_model(camera_model)
    (model.write_text if text else model.write_binary)(home)
    for number in range(1, COUNT + 1):
        pixels = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{number}.jpg")
    return home


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Replace a file's content."""
    path.write_bytes(change(path.read_bytes()))


def put(form: str, at: int, value: float) -> Callable[[bytes], bytes]:
    """A change that packs a value over the bytes from a position on."""
    packed = struct.pack(form, value)
    return lambda data: data[:at] + packed + data[at + len(packed) :]
