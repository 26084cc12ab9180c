"""A scene: cameras, undistorted images and sparse points. Output of sfm, input of training, compression and reports.

Layout of the folder: `images/<name>` (undistorted, at the training resolution), `sparse/0/*.bin` (the same model for
COLMAP and its friends), `scene.json` (cameras and frame), `points.npz` (sparse points and which photos show them),
`georeference.json` where the scene has one, and `hidden.npz` where parts of the images show no place (as a title).

Axes: cameras look along +z, x right, y down (OpenCV, as COLMAP). The centre of the top-left pixel is at (0.5, 0.5) px.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.georeference import Georeference
from tasks.core.image_file import open_image
from tasks.core.safe_names import below
from tasks.core.transforms import Float64, rigid_inverse

SCENE_FILE = "scene.json"
POINTS_FILE = "points.npz"
HIDDEN_FILE = "hidden.npz"
IMAGES_FOLDER = "images"
MODEL_FOLDER = "sparse/0"


@dataclass(frozen=True)
class Camera:
    """A pinhole camera and its pose. `name` is the image's path below `images/`, posix."""

    name: str
    width: int
    height: int
    fx: float  # focal lengths and principal point in pixels
    fy: float
    cx: float
    cy: float
    cam_from_world: Float64  # [4, 4], rigid

    @cached_property
    def center(self) -> Float64:
        """Position of the camera in the world [3]."""
        return rigid_inverse(self.cam_from_world)[:3, 3]

    @cached_property
    def forward(self) -> Float64:
        """Unit viewing direction in the world [3]."""
        return self.cam_from_world[2, :3].copy()

    @cached_property
    def up(self) -> Float64:
        """Unit vector towards the image's top, in the world [3]."""
        return -self.cam_from_world[1, :3]

    def resized(self, width: int, height: int) -> "Camera":
        """The same camera with an image of another size."""
        sx, sy = width / self.width, height / self.height
        return Camera(
            self.name, width, height, self.fx * sx, self.fy * sy, self.cx * sx, self.cy * sy, self.cam_from_world
        )

    def cropped(self, left: int, top: int, width: int, height: int) -> "Camera":
        """The same camera with a part of its image, whose top left corner is at (left, top)."""
        return Camera(self.name, width, height, self.fx, self.fy, self.cx - left, self.cy - top, self.cam_from_world)


@dataclass(frozen=True)
class SparsePoints:
    """Triangulated points."""

    xyz: Float64  # [P, 3]
    rgb: NDArray[np.uint8]  # [P, 3]
    errors_px: Float64  # [P] mean reprojection error
    track_lengths: NDArray[np.int32]  # [P] number of images that see the point

    def of(self, rows: NDArray[np.generic]) -> "SparsePoints":
        """Some of the points, by their numbers or a mask [P]."""
        return SparsePoints(*(array[rows] for array in vars(self).values()))


@dataclass(frozen=True)
class Observations:
    """Pairs of a photo and a sparse point that it shows, in no particular order."""

    cameras: NDArray[np.int32]  # [O] indices of Scene.cameras
    points: NDArray[np.int32]  # [O] indices of Scene.points

    @classmethod
    def none(cls) -> "Observations":
        """The observations of a scene that records none."""
        return cls(np.zeros(0, np.int32), np.zeros(0, np.int32))


@dataclass(frozen=True)
class Scene:
    """Registered cameras in capture order, sparse points, and their frame."""

    folder: Path
    cameras: tuple[Camera, ...]
    points: SparsePoints = field(repr=False)
    up: Float64  # [3] unit vector that points to the sky
    georeference: Georeference | None = None
    observations: Observations = field(default_factory=Observations.none, repr=False)

    @cached_property
    def extent(self) -> float:
        """Twice the greatest distance of a camera from the centroid of all cameras: the unit of position errors."""
        centers = np.stack([camera.center for camera in self.cameras])
        return float(2 * np.linalg.norm(centers - centers.mean(axis=0), axis=1).max())

    def image_path(self, camera: Camera) -> Path:
        """Path of the camera's undistorted image. Raises UnsafeNameError if its name leads out of the scene."""
        return below(self.folder / IMAGES_FOLDER, camera.name)

    def image(self, camera: Camera) -> NDArray[np.uint8]:
        """The camera's undistorted image, RGB [height, width, 3]."""
        with open_image(self.image_path(camera)) as image:
            return np.asarray(image.convert("RGB"))

    @cached_property
    def hidden(self) -> dict[str, NDArray[np.bool_]]:
        """Masks [height, width] of what shows no place, by the names of cameras that have one; many share an array."""
        return load_masks(self.folder / HIDDEN_FILE)

    def save(self) -> None:
        """Write `scene.json`, `points.npz` and, if there is one, `georeference.json` into the scene's folder."""
        if self.georeference is not None:
            self.georeference.save(self.folder)
        cameras = [
            {
                **{key: getattr(camera, key) for key in ("name", "width", "height", "fx", "fy", "cx", "cy")},
                "cam_from_world": camera.cam_from_world.tolist(),
            }
            for camera in self.cameras
        ]
        text = json.dumps({"up": self.up.tolist(), "cameras": cameras}, indent=1)
        (self.folder / SCENE_FILE).write_text(text, encoding="utf-8")
        with (self.folder / POINTS_FILE).open("wb") as file:
            observed = {"observing_cameras": self.observations.cameras, "observed_points": self.observations.points}
            np.savez(file, allow_pickle=False, **vars(self.points), **observed)

    @classmethod
    def load(cls, folder: Path) -> "Scene":
        """Read what `save` wrote."""
        described: dict[str, Any] = json.loads((folder / SCENE_FILE).read_text(encoding="utf-8"))
        cameras = tuple(
            Camera(**{**camera, "cam_from_world": np.array(camera["cam_from_world"])})
            for camera in described["cameras"]
        )
        with np.load(folder / POINTS_FILE, allow_pickle=False) as arrays:
            points = SparsePoints(**{name: arrays[name] for name in ("xyz", "rgb", "errors_px", "track_lengths")})
            observations = Observations.none()
            if "observed_points" in arrays:  # older scenes have none
                observations = Observations(arrays["observing_cameras"], arrays["observed_points"])
        return cls(
            folder=folder,
            cameras=cameras,
            points=points,
            up=np.array(described["up"]),
            georeference=Georeference.load(folder),
            observations=observations,
        )


def save_masks(file: Path, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Write masks by name, arrays that several names share once; no file where there is no mask.

    Bits are packed and not compressed: with pycolmap loaded, zlib aborts the process.
    """
    if not masks:
        return
    distinct = list({id(mask): mask for mask in masks.values()}.values())
    numbers = {id(mask): number for number, mask in enumerate(distinct)}
    arrays: dict[str, NDArray[Any]] = {f"mask{number}": np.packbits(mask) for number, mask in enumerate(distinct)}
    arrays["shapes"] = np.array([mask.shape for mask in distinct], dtype=np.int64)
    arrays["names"] = np.array(list(masks), dtype=np.str_)
    arrays["masks"] = np.array([numbers[id(mask)] for mask in masks.values()], dtype=np.int64)
    with file.open("wb") as opened:
        np.savez(opened, allow_pickle=False, **arrays)


def load_masks(file: Path) -> dict[str, NDArray[np.bool_]]:
    """Read what `save_masks` wrote; empty without a file."""
    if not file.is_file():
        return {}
    with np.load(file, allow_pickle=False) as arrays:
        shapes: list[list[int]] = arrays["shapes"].tolist()
        masks = [
            np.unpackbits(arrays[f"mask{number}"], count=rows * columns).reshape(rows, columns).astype(bool)
            for number, (rows, columns) in enumerate(shapes)
        ]
        return {str(name): masks[number] for name, number in zip(arrays["names"], arrays["masks"], strict=True)}
