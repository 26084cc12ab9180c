"""Pictures of the splat, drawn by our own renderer."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.core.gaussians import Gaussians
from tasks.core.render.interface import Rasterizer
from tasks.core.scene import Camera
from tasks.core.transforms import Float64, rigid

_QUALITY = 90
_GAP_PX = 8
_PAIR_WIDTH_PX = 1600  # a screen shows no more

FRAMES = 36
_FRAME_MS = 100
FRAME_WIDTH_PX = 480
_FRAME_QUALITY = 55
_SWING_DEG = 20.0  # to either side, where nothing is known of the other sides


def write_preview(gaussians: Gaussians, camera: Camera, rasterizer: Rasterizer, target: Path) -> None:
    """Write a JPEG of what the camera sees, in the camera's own size."""
    _as_picture(rasterizer.render(gaussians, camera)).save(target, "JPEG", quality=_QUALITY)


def write_fly_around(
    gaussians: Gaussians,
    camera: Camera,
    pivot: Float64,
    up: Float64,
    all_around: bool,
    rasterizer: Rasterizer,
    target: Path,
) -> None:
    """Write an endless animated WebP, 480 px wide, of a camera that orbits `pivot` [3] along the axis `up` [3].

    Once around where photos were taken from all sides, else to the left and right and back.
    """
    height = max(1, round(camera.height * FRAME_WIDTH_PX / camera.width))
    small = camera.resized(FRAME_WIDTH_PX, height)
    frames = [
        _as_picture(rasterizer.render(gaussians, _turned(small, pivot, up, angle))) for angle in _angles_deg(all_around)
    ]
    frames[0].save(
        target,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=_FRAME_MS,
        loop=0,
        quality=_FRAME_QUALITY,
        method=3,
    )


def _angles_deg(all_around: bool) -> Iterator[float]:
    for frame in range(FRAMES):
        turn = frame / FRAMES
        yield 360 * turn if all_around else _SWING_DEG * float(np.sin(2 * np.pi * turn))


def _turned(camera: Camera, pivot: Float64, up: Float64, angle_deg: float) -> Camera:
    """The camera after a turn of the world about the axis `up` through `pivot` (Rodrigues)."""
    x, y, z = up
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(angle_deg)
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return replace(camera, cam_from_world=camera.cam_from_world @ rigid(rotation, pivot - rotation @ pivot))


def side_by_side(photo: NDArray[np.uint8], image: NDArray[np.float32]) -> bytes:
    """A JPEG with a photo [H, W, 3] on the left and its render [H, W, 3], 0..1, on the right, at most 1600 px wide."""
    height, width = photo.shape[:2]
    both = Image.new("RGB", (2 * width + _GAP_PX, height), "white")
    both.paste(Image.fromarray(photo), (0, 0))
    both.paste(_as_picture(image), (width + _GAP_PX, 0))
    both.thumbnail((_PAIR_WIDTH_PX, _PAIR_WIDTH_PX))
    buffer = io.BytesIO()
    both.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _as_picture(image: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))
