"""Cameras as NeRF programs write them: nerfstudio's and instant-ngp's `transforms.json`, and Polycam's raw export.

`transform_matrix` is camera-to-world with OpenGL's axes: x right, y up, z backwards. Formats:
https://docs.nerf.studio/quickstart/data_conventions.html and nerfstudio/process_data/polycam_utils.py. nerfstudio's
`applied_transform` has been applied to these matrices and to the points in its .ply, so nothing is left to do with it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.errors import FormatError
from tasks.core.safe_names import reason, shown
from tasks.core.transforms import Float64, rigid, rigid_inverse

TRANSFORMS_FILE = "transforms.json"
# Of NeRF's synthetic scenes, whose photos for comparison are in files of their own
TRAINING_FILE = "transforms_train.json"
POINTS_FILES = ("sparse_pc.ply", "points3D.ply", "pointcloud.ply")  # where the file names none
LARGEST = 1e9  # of all numbers: coordinates of the Earth's centre in metres are below 1e7
LONGEST_VALUE = 20  # characters of a value in a message
POSITIVE = frozenset({"fl_x", "fl_y", "w", "h", "camera_angle_x", "camera_angle_y", "x_fov", "y_fov"})
MOST_BYTES = 256 << 20  # 100,000 frames
OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
ROTATION_ERROR = 1e-2  # of the entries, after the scale was taken out; programs print at least six digits
# Keys of programs that prepare photos for splats. instant-ngp's own script writes none of them: its cameras are those
# of COLMAP without the points, and the photos alone give both.
PREPARED_KEYS = frozenset({"camera_model", "applied_transform", "ply_file_path"})
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE")
FISHEYES = ("OPENCV_FISHEYE",)
LENSES = ("OPENCV", "SIMPLE_RADIAL", "RADIAL", "FULL_OPENCV")
CORRECTED_CAMERAS = "corrected_cameras"
POLYCAM_FOLDERS = ((CORRECTED_CAMERAS, "corrected_images"), ("cameras", "images"))
POLYCAM_ENTRIES = tuple(tuple(f"t_{row}{column}" for column in range(4)) for row in range(3))


@dataclass(frozen=True)
class Intrinsics:
    """A camera of such a file. Sizes and the principal point are None where the images decide."""

    model: str  # COLMAP's word for it
    width: int | None
    height: int | None
    fx: float | None  # px
    fy: float | None
    cx: float | None
    cy: float | None
    angle_x: float | None  # whole angle of view in radians, where there is no focal length
    angle_y: float | None
    distortion: tuple[float, ...]

    def parameters(self, width: int, height: int) -> list[float]:
        """Return COLMAP's parameters for images of this size (px)."""
        fx = self.fx if self.fx is not None else _focal(width, self.angle_x)
        fy = self.fy if self.fy is not None else _focal(height, self.angle_y)
        fx, fy = fx or fy, fy or fx
        assert fx is not None
        assert fy is not None
        cx, cy = (self.cx if self.cx is not None else width / 2), (self.cy if self.cy is not None else height / 2)
        return [fx, fy, cx, cy, *self.distortion]


@dataclass(frozen=True)
class PosedFrame:
    """A photo and its camera."""

    name: str  # path of the photo as the file has it
    camera: int  # place in the cameras
    cam_from_world: Float64  # [4, 4], OpenCV axes


@dataclass(frozen=True)
class PosedFrames:
    """The content of such a file."""

    cameras: tuple[Intrinsics, ...]
    frames: tuple[PosedFrame, ...]
    points_file: str | None  # .ply as the file names it
    masks: int  # frames with a mask, which is not used


def find_transforms(folder: Path) -> Path | None:
    """Return the file with cameras in a folder, if its photos are to get these cameras.

    That is a `transforms.json` with points, or of a program that prepares photos for splats. Any other one is None, so
    that its photos are reconstructed, and `why_unused` says it.
    """
    if (folder / TRAINING_FILE).is_file() and not (folder / TRANSFORMS_FILE).is_file():
        return folder / TRAINING_FILE
    file = folder / TRANSFORMS_FILE
    if not file.is_file():
        return None
    try:
        content = _content(file)
    except FormatError:
        return None
    prepared = not PREPARED_KEYS.isdisjoint(content) or any((folder / name).is_file() for name in POINTS_FILES)
    return file if prepared else None


def why_unused(folder: Path) -> str | None:
    """Return a sentence on a `transforms.json` beside photos that is not used; None if there is none."""
    file = folder / TRANSFORMS_FILE
    if not file.is_file():
        return None
    try:
        _content(file)
    except FormatError as error:
        return f"{TRANSFORMS_FILE} was not used. {error}"
    return (
        f"{TRANSFORMS_FILE} was not used: it contains no points, and the photos alone give cameras and points. To take "
        f"its cameras all the same, name the file itself in place of its folder: {file}."
    )


def read_transforms(file: Path) -> PosedFrames:
    """Read cameras and frames. Raises FormatError, which names the frame or the key."""
    content = _content(file)
    listed = content["frames"]
    cameras: dict[Intrinsics, int] = {}
    frames: list[PosedFrame] = []
    for place, frame in enumerate(listed):
        what = f"Frame {place + 1} of {file.name}"
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise FormatError(f"{what} has no file_path: export it again.")
        intrinsics = _intrinsics({**content, **frame}, f"{what} ({shown(frame['file_path'])})")
        camera = cameras.setdefault(intrinsics, len(cameras))
        frames.append(PosedFrame(frame["file_path"], camera, _cam_from_world(frame.get("transform_matrix"), what)))
    named = content.get("ply_file_path")
    return PosedFrames(
        cameras=tuple(cameras),
        frames=tuple(frames),
        points_file=named if isinstance(named, str) else None,
        masks=sum(1 for frame in listed if isinstance(frame, dict) and frame.get("mask_path")),
    )


def find_polycam(folder: Path) -> Path | None:
    """Return the folder of cameras in Polycam's raw export; None if it is no such export."""
    for base in (folder, folder / "keyframes"):
        for cameras, images in POLYCAM_FOLDERS:
            if (base / cameras).is_dir() and (base / images).is_dir():
                first = min((base / cameras).glob("*.json"), default=None)
                if first is not None and "t_00" in _object(first):
                    return base / cameras
    return None


def polycam_images(cameras: Path) -> Path:
    """Return the folder of the images of a folder of cameras."""
    return cameras.with_name(dict(POLYCAM_FOLDERS)[cameras.name])


def read_polycam(folder: Path) -> PosedFrames:
    """Read a folder of Polycam's cameras, one file for each photo. Raises FormatError, which names the file."""
    cameras: dict[Intrinsics, int] = {}
    frames: list[PosedFrame] = []
    for file in sorted(folder.glob("*.json")):
        content = _object(file)
        values = {"fl_x": "fx", "fl_y": "fy", "cx": "cx", "cy": "cy", "w": "width", "h": "height"}
        spelled = {ours: content[theirs] for ours, theirs in values.items() if theirs in content}
        intrinsics = _intrinsics({**spelled, "camera_model": "PINHOLE"}, file.name)
        matrix = [[content.get(entry) for entry in row] for row in POLYCAM_ENTRIES]
        pose = _cam_from_world([*matrix, [0, 0, 0, 1]], file.name)
        frames.append(PosedFrame(f"{file.stem}.jpg", cameras.setdefault(intrinsics, len(cameras)), pose))
    return PosedFrames(tuple(cameras), tuple(frames), None, 0)


def _content(file: Path) -> dict[str, Any]:
    """Read a file of frames. Raises FormatError."""
    content = _object(file)
    if not isinstance(content.get("frames"), list) or not content["frames"]:
        raise FormatError(f"{file.name} contains no frames: export it again.")
    return content


def _object(file: Path) -> dict[str, Any]:
    if file.stat().st_size > MOST_BYTES:
        raise FormatError(f"{file.name} has more than {MOST_BYTES >> 20} MB: it cannot be a file of cameras.")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{file.name} cannot be read as JSON: {reason(error)}.") from error
    if not isinstance(content, dict):
        raise FormatError(f"{file.name} is no JSON object with frames: export it again.")
    return content


def _intrinsics(values: Mapping[str, Any], what: str) -> Intrinsics:
    """Return the camera of a frame. Its own values are before those that it shares with the others."""

    def number(key: str) -> float | None:
        value = values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
            raise FormatError(f"{what} has {shown(str(value)[:LONGEST_VALUE])} as {key}: need a number.")
        if key in POSITIVE and value <= 0:
            raise FormatError(f"{what} has {value:g} as {key}: need more than 0.")
        return float(value)

    def degrees(key: str) -> float | None:
        value = number(key)
        return None if value is None else math.radians(value)

    word = str(values.get("camera_model") or ("OPENCV_FISHEYE" if values.get("is_fisheye") else "OPENCV")).upper()
    if word not in (*PINHOLES, *FISHEYES, *LENSES):
        raise FormatError(f"{what} has a camera of model {shown(word)}; only perspective and fisheye ones can be used.")
    k1, k2, k3, k4, p1, p2 = (number(key) or 0.0 for key in DISTORTION)
    if word in PINHOLES or (not any((k1, k2, k3, k4, p1, p2)) and word not in FISHEYES):
        model, distortion = "PINHOLE", tuple[float, ...]()
    elif word in FISHEYES:
        model, distortion = "OPENCV_FISHEYE", (k1, k2, k3, k4)
    elif k4:
        raise FormatError(f"{what} has k4 = {k4:g}, which no camera model of COLMAP has: undistort the photos first.")
    elif k3:
        model, distortion = "FULL_OPENCV", (k1, k2, p1, p2, k3, 0.0, 0.0, 0.0)
    else:
        model, distortion = "OPENCV", (k1, k2, p1, p2)
    fx, fy = number("fl_x"), number("fl_y")
    angle_x = number("camera_angle_x") or degrees("x_fov")
    angle_y = number("camera_angle_y") or degrees("y_fov")
    for angle in (angle_x, angle_y):
        if angle is not None and angle >= math.pi:
            raise FormatError(f"{what} has an angle of view of {angle:g} rad: need less than half a turn.")
    if not (fx or fy or angle_x or angle_y):
        raise FormatError(f"{what} has no focal length: need fl_x or camera_angle_x.")
    width, height = number("w"), number("h")
    return Intrinsics(
        model=model,
        width=None if width is None else round(width),
        height=None if height is None else round(height),
        fx=fx,
        fy=fy,
        cx=number("cx"),
        cy=number("cy"),
        angle_x=angle_x,
        angle_y=angle_y,
        distortion=distortion,
    )


def _focal(pixels: int, angle: float | None) -> float | None:
    return None if not angle else pixels / 2 / math.tan(angle / 2)


def _cam_from_world(matrix: object, what: str) -> Float64:
    """Return the pose of a camera-to-world matrix with OpenGL's axes, [4, 4] or [3, 4]; a scale in it is left out."""
    try:
        pose = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        pose = np.zeros(0)
    if pose.shape not in ((3, 4), (4, 4)) or not (np.abs(pose) <= LARGEST).all():
        raise FormatError(f"{what} has no transform_matrix of 4 rows of 4 numbers: export it again.")
    turned, center = pose[:3, :3], pose[:3, 3]
    scale = float(np.cbrt(np.linalg.det(turned)))
    if scale <= 0 or np.abs(turned @ turned.T / scale**2 - np.eye(3)).max() > ROTATION_ERROR:
        raise FormatError(f"{what} has a transform_matrix that is no rotation: export it again.")
    u, _, vt = np.linalg.svd(turned)
    return rigid_inverse(rigid(u @ vt, center) @ OPENCV_FROM_OPENGL)
