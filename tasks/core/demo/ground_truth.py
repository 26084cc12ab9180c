"""What the simulated drone knows and a real one does not: every photo's true camera.

The frame is metres East-North-Up around a WGS84 origin; cameras as `scene.Camera` (OpenCV axes, cam_from_world).
"""

import json
from pathlib import Path

import numpy as np

from tasks.core.demo.geodesy import Position
from tasks.core.errors import FormatError
from tasks.core.scene import Camera

_NUMBERS = ("width", "height", "fx", "fy", "cx", "cy")


def ground_truth_path(photos: Path) -> Path:
    """Where the truth about a folder of demo photos lies: beside it, so that it is never taken for a photo."""
    return photos.parent / f"{photos.name}_ground_truth.json"


def save_ground_truth(path: Path, cameras: tuple[Camera, ...], origin: Position) -> None:
    """Write the true cameras, in flight order."""
    described = [
        {
            "name": camera.name,
            **{key: getattr(camera, key) for key in _NUMBERS},
            "cam_from_world": camera.cam_from_world.tolist(),
        }
        for camera in cameras
    ]
    path.write_text(json.dumps({"origin": vars(origin), "cameras": described}, indent=1), encoding="utf-8")


def load_ground_truth(path: Path) -> tuple[Camera, ...]:
    """Read the true cameras, in flight order.

    Raises:
        FormatError: the file is not what `save_ground_truth` writes.
    """
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        return tuple(
            Camera(
                name=camera["name"],
                **{key: camera[key] for key in _NUMBERS},
                cam_from_world=np.array(camera["cam_from_world"], np.float64).reshape(4, 4),
            )
            for camera in described["cameras"]
        )
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path.name} does not describe a demo flight ({error}); fly again to write it anew."
        ) from error
