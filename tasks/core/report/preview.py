"""Pictures of the splat, drawn by our own renderer."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.core.gaussians import Gaussians
from tasks.core.render.interface import Rasterizer
from tasks.core.scene import Camera

_QUALITY = 90
_GAP_PX = 8
_PAIR_WIDTH_PX = 1600  # a screen shows no more


def write_preview(gaussians: Gaussians, camera: Camera, rasterizer: Rasterizer, target: Path) -> None:
    """Write a JPEG of what the camera sees, in the camera's own size."""
    _as_picture(rasterizer.render(gaussians, camera)).save(target, "JPEG", quality=_QUALITY)


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
