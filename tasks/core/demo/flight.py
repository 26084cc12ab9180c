"""The demo's drone: flies over the generated hamlet and brings photos home."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from tasks.core.demo import place
from tasks.core.demo.camera_film import expose
from tasks.core.demo.flight_plan import FOCAL_35MM_EQUIVALENT, DemoOptions, look_at, plan
from tasks.core.demo.geodesy import position_from_enu
from tasks.core.demo.ground_truth import ground_truth_path, save_ground_truth
from tasks.core.demo.photo_file import jpeg_bytes
from tasks.core.demo.world import build_world
from tasks.core.errors import DestinationError
from tasks.core.progress import Progress, ProgressCallback
from tasks.core.scene import Camera
from tasks.core.transforms import Float64

TAKE_OFF = datetime(2026, 6, 14, 15, 20)  # noqa: DTZ001 - EXIF times are local and know no zone
SECONDS_BETWEEN_PHOTOS = 4


def compile_kernels() -> None:
    """Compile the ray caster, or find it compiled: about 15 seconds of one core, once for a machine."""
    view = look_at(np.array([0.0, 0.0, 40.0]), np.zeros(3), 0.0)
    expose(build_world(), Camera("", 4, 3, 3.0, 3.0, 2.0, 1.5, view))


def fly(out: Path, options: DemoOptions, on_progress: ProgressCallback) -> None:
    """Take the photos of the demo flight.

    Writes `DEMO_0001.JPG` … into `out`, with EXIF: time, focal length, and the GPS position, which is the true one
    and a seeded error of 0.3 m standard deviation per axis. The true cameras go to `ground_truth_path(out)`.
    The same options give the same bytes.

    Args:
        out: the photos' folder; made if missing.
        options: number and size of the photos, seed.
        on_progress: told after every photo, in photos.

    Raises:
        DestinationError: `out` holds other files, or cannot be written.
    """
    cameras, gps = plan(options)
    _prepare(out, {camera.name for camera in cameras})
    world = build_world()
    compile_kernels()  # here, not in several threads at once

    def shoot(number: int, camera: Camera, reported: Float64) -> None:
        photo = jpeg_bytes(
            expose(world, camera).rgb,
            TAKE_OFF + timedelta(seconds=SECONDS_BETWEEN_PHOTOS * number),
            position_from_enu(reported, place.ORIGIN),
            FOCAL_35MM_EQUIVALENT,
            camera.fx / max(camera.width, camera.height),
        )
        (out / camera.name).write_bytes(photo)

    with ThreadPoolExecutor(os.cpu_count()) as drones:
        shots = drones.map(shoot, range(len(cameras)), cameras, gps)
        for done, _ in enumerate(shots, start=1):
            on_progress(Progress(done, len(cameras), f"photo {done}/{len(cameras)}"))
    save_ground_truth(ground_truth_path(out), cameras, place.ORIGIN)


def _prepare(out: Path, expected: set[str]) -> None:
    """An empty folder, or one with photos of this very flight, which are taken again."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        others = sorted(entry.name for entry in out.iterdir() if entry.name not in expected)
    except OSError as error:
        raise DestinationError(f"The demo photos cannot be written to {out}: {error.strerror}.") from error
    if others:
        raise DestinationError(
            f"{out} holds {len(others)} other files ({others[0]} …), which would be taken for "
            "photos of the demo flight; name an empty folder."
        )
