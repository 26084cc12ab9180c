"""A picture of the splat from its first view, drawn by our own renderer."""

from pathlib import Path

import numpy as np
from PIL import Image

from tasks.core.gaussians import Gaussians
from tasks.core.render.interface import Rasterizer
from tasks.core.scene import Camera

_QUALITY = 90


def write_preview(gaussians: Gaussians, camera: Camera, rasterizer: Rasterizer, target: Path) -> None:
    """Write a JPEG of what the camera sees, in the camera's own size."""
    image = np.clip(rasterizer.render(gaussians, camera), 0, 1)
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(target, "JPEG", quality=_QUALITY)
